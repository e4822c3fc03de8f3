//! Classifies database errors by SQLSTATE (PostgreSQL, appendix A): outage, connection, data, refused row.

use std::io::ErrorKind;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// True if Postgres may have carried out the failed statement. False if the server reported that it did not.
pub(crate) fn may_have_taken_effect(error: &sqlx::Error) -> bool {
    postgres_error(error).is_none_or(|error| error.severity() != PgSeverity::Error)
}

/// True if waiting may help: the database is unavailable, starts, stops, is full or takes no writes, or DNS fails. False for
/// mistakes in a statement or in the setup: an unknown database (class 3D), missing privileges (42), a refused login, a file, a
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

pub(crate) fn is_login_refused(error: &sqlx::Error) -> bool {
    is_of_class(error, &["28"]) || is_password_refused(error)
}

/// True if another password may help. PgBouncer reports a wrong password as a protocol violation (08P01), which only its text
/// distinguishes from others.
pub(crate) fn is_password_refused(error: &sqlx::Error) -> bool {
    is_of_class(error, &["28P01"])
        || is_of_class(error, &["08P01"])
            && postgres_error(error).is_some_and(|e| e.message().contains("authentication failed"))
}

/// True if a trigger or a constraint may have refused one row of a statement, with any code that its author chose. The
/// functions then find the row, by `one_by_one`. Keep the rule equal to that of `signaling.is_refusal`.
pub(crate) fn may_be_refusal(error: &sqlx::Error) -> bool {
    !may_have_taken_effect(error)
        && (!is_of_class(error, &["08", "25", "40", "53", "57", "58", "55P03"])
            || is_of_application(error))
}

/// True if an application's function raised the error, or got it from another server. Without this check, the code of such an
/// error would look like a failure of the worker's own connection or server.
fn is_of_application(error: &sqlx::Error) -> bool {
    let context = postgres_error(error).and_then(PgDatabaseError::r#where);
    let context = context.unwrap_or_default();
    let is_foreign = |line: &str| {
        let function = line.strip_prefix("PL/pgSQL function ");
        function.is_some_and(|function| !function.starts_with("signaling."))
    };
    let innermost = context.lines().next().unwrap_or_default();
    is_foreign(innermost) && innermost.ends_with(" RAISE")
        || is_of_class(error, &["08", "40", "55", "58"]) && context.lines().any(is_foreign)
}

/// True if row-level security denies access to a table, to a function's owner or to the session's role. Compares the name of
/// the server's routine, because Postgres translates the message.
pub(crate) fn is_row_security(error: &sqlx::Error) -> bool {
    postgres_error(error)
        .is_some_and(|error| error.code() == "42501" && error.routine() == Some("check_enable_rls"))
}

/// True if the role lacks a privilege.
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    is_of_class(error, &["42501"])
}

/// True if a statement within a function failed. False if the statement that this process sent failed.
pub(super) fn is_within_function(error: &sqlx::Error) -> bool {
    postgres_error(error).is_some_and(|error| error.r#where().is_some())
}

/// True if the connection or the server failed, not the statement: no response at all, a connection exception (class 08), or a
/// server that ends the session (57P) or takes no writes (25006). After a failover, another server takes writes.
pub(super) fn is_connection_error(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(_) => is_of_class(error, &["08", "57P", "25006"]) && !is_of_application(error),
        None => !matches!(error, sqlx::Error::RowNotFound | sqlx::Error::PoolTimedOut),
    }
}

/// True if a claim failed because the row of the app's lane was deleted. Waiting would not bring the row back.
pub(crate) fn is_missing_lane(error: &sqlx::Error) -> bool {
    is_of_class(error, &["P0002"])
}

/// True if a statement failed only because of a lock: `lock_not_available`, or a deadlock.
pub(crate) fn is_without_lock(error: &sqlx::Error) -> bool {
    is_of_class(error, &["55P03", "40P01"])
}

fn postgres_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

fn is_of_class(error: &sqlx::Error, classes: &[&str]) -> bool {
    let error = postgres_error(error);
    error.is_some_and(|error| classes.iter().any(|class| error.code().starts_with(class)))
}
