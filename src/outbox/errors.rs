//! Classifies database errors: outage, connection, data, or possibly carried out.

use std::io::ErrorKind;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Whether a statement that failed may have been carried out all the same: the server did not say that it was not.
pub(crate) fn may_have_taken_effect(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_none_or(|error| error.severity() != PgSeverity::Error)
}

/// Whether waiting may mend what is wrong: the database is away, starts, stops, is full or takes no writes, a name
/// can't be looked up. Not so where something is wrong with what was asked or how it is set up: classes 28
/// (authorization), 3D (no such database) and 42 (access rule violation) of PostgreSQL, appendix A; a file, a
/// certificate.
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => !is_login_refused(error) && !is_of_class(error, &["3D", "42"]),
        sqlx::Error::Io(error) => !matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
                | ErrorKind::Unsupported
        ),
        sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

/// True if the server refuses the login: class 28 (authorization). PgBouncer reports a wrong password as a protocol
/// violation (08P01), which only its text distinguishes from others.
pub(super) fn is_login_refused(error: &sqlx::Error) -> bool {
    let is_poolers = || {
        let error = error.as_database_error();
        error.is_some_and(|error| error.message().contains("authentication failed"))
    };
    is_of_class(error, &["28"]) || is_of_class(error, &["08P01"]) && is_poolers()
}

/// True if the same statement fails again with the same data: data exceptions (class 22), integrity violations (23) and
/// errors that a trigger raises (P0) (PostgreSQL, appendix A).
pub(crate) fn is_data_error(error: &sqlx::Error) -> bool {
    is_of_class(error, &["22", "23", "P0"])
}

/// True if a trigger or a constraint may have refused one row of a statement, with any code that its author chose. The
/// functions then find out which row, by `isolates`. Keep the rule equal to that of `signaling.is_refusal`.
pub(crate) fn may_be_refusal(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some()
        && !may_have_taken_effect(error)
        && (!is_of_class(error, &["08", "25", "40", "53", "57", "58", "55P03"])
            || is_of_application(error))
}

/// True if an application's function has raised the error, with a code that would else speak of the connection or the
/// server: by RAISE, or because a server that the function asks has answered so.
fn is_of_application(error: &sqlx::Error) -> bool {
    let database_error = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let context = database_error.and_then(PgDatabaseError::r#where);
    let functions: Vec<&str> = context
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("PL/pgSQL function "))
        .collect();
    let is_raised = context.is_some_and(|context| {
        let line = context.lines().next().unwrap_or_default();
        let function = line.strip_prefix("PL/pgSQL function ");
        function.is_some_and(|function| {
            !function.starts_with("signaling.") && function.ends_with(" RAISE")
        })
    });
    let is_within = functions
        .iter()
        .any(|function| !function.starts_with("signaling."));
    is_raised || is_within && is_of_class(error, &["08", "40", "55", "58"])
}

/// True if row-level security denies access to a table. The role is the owner of a function, or the session's role in other
/// statements. This compares the name of the routine, because Postgres translates the message.
pub(crate) fn is_row_security(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| error.code() == "42501" && error.routine() == Some("check_enable_rls"))
}

/// Whether an error is about the connection or the server, not about the statement: classes 08 (connection exception)
/// and 57 (operator intervention: the server stops, or a person has ended the session), 25006 (the server takes no writes:
/// after a failover, another one does), and what is no answer of a server at all (PostgreSQL, appendix A).
pub(super) fn is_connection_error(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        // 57014: this statement alone was cancelled.
        Some(_) => is_of_class(error, &["08", "57P", "25006"]) && !is_of_application(error),
        None => !matches!(error, sqlx::Error::RowNotFound | sqlx::Error::PoolTimedOut),
    }
}

/// True if a claim failed because the row of the app's lane was deleted. Waiting would not bring the row back.
pub(crate) fn is_missing_lane(error: &sqlx::Error) -> bool {
    is_of_class(error, &["P0002"])
}

/// True if a statement failed only because of a lock: `lock_not_available`, or a deadlock that Postgres resolved by it.
pub(crate) fn is_without_lock(error: &sqlx::Error) -> bool {
    is_of_class(error, &["55P03", "40P01"])
}

fn is_of_class(error: &sqlx::Error, classes: &[&str]) -> bool {
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}
