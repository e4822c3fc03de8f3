//! All access to the database: the protocol (`queue`), the schema, queries for operators, and the connections. No other module
//! contains SQL for the outbox.

/// Builds a call of a function of the schema `signaling`, with named arguments.
macro_rules! call {
    ($function:ident, $($name:ident = $value:expr),* $(,)?) => {
        $crate::outbox::pool::Call::new(stringify!($function))
            $(.with(stringify!($name), &$value))*
    };
}

mod admin;
mod connect;
mod diagnostics;
mod errors;
mod maintenance;
mod one_off;
mod pool;
mod queue;
mod read;
mod schema;
mod servers;
mod wakeup;

pub(crate) use admin::*;
pub(crate) use connect::{Outbox, Unreachable};
pub(crate) use diagnostics::*;
pub(crate) use errors::*;
pub(crate) use maintenance::{AppReport, MIN_RETENTION, MinuteStats};
pub(crate) use pool::{
    AdaptiveTimeout, DEFAULT_MAX_AGE, STATEMENT_DURATION, STATEMENT_ERRORS, is_timeout,
};
pub(crate) use queue::*;
pub(crate) use read::*;
pub(crate) use schema::{
    Damage, Migrated, ObjectKind, RoleKind, SchemaError, SchemaObject, list_names,
};

/// An array argument with one value for each row.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
