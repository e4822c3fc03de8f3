//! All access to the database: the protocol (`queue`), the schema, queries for operators, and the connections. No other module
//! contains SQL for the outbox.

/// A call of a function of the schema `signaling`, with named arguments.
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
mod one_off;
mod pool;
mod queue;
mod read;
mod retention;
mod schema;
mod servers;
mod stats;
mod wakeup;
mod workers;

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

pub(crate) use admin::*;
pub(crate) use connect::{ConnectError, Outbox};
pub(crate) use diagnostics::*;
pub(crate) use errors::*;
pub(crate) use pool::{
    AdaptiveTimeout, DEFAULT_MAX_AGE, STATEMENT_DURATION, STATEMENT_ERRORS, is_timeout,
};
pub(crate) use queue::*;
pub(crate) use read::*;
pub(crate) use retention::MIN_RETENTION;
pub(crate) use schema::{Damage, Migrated, ObjectKind, RoleKind, SchemaError, SchemaObject};
pub(crate) use stats::MinuteStats;
pub(crate) use workers::AppReport;

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

/// An argument that has a value for each row.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
