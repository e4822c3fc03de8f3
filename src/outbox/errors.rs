//! What an error of the database says, for people and for those who decide what to do next.

use std::io::ErrorKind;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::tls::refused_certificate;

/// SQLSTATE of an exception that was raised without another one. The schema's own functions give others.
const RAISED: &str = "P0001";

/// What the database said, in its own words and without where in its source it said so. Its detail is left out, which
/// repeats the row; and what somebody's trigger has raised says anything.
pub fn explain(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return without_connection(error);
    };
    if error.code().as_deref() == Some(RAISED) {
        return "somebody's trigger or function refused it (raise exception): the server's log says why".into();
    }
    let hint = error
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(|error| error.hint());
    match hint {
        Some(hint) => format!("{} ({hint})", error.message()),
        None => error.message().to_owned(),
    }
}

/// Whether a statement that failed may have been carried out all the same: the server did not say that it was not.
pub(super) fn may_have_happened(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_none_or(|error| error.severity() != PgSeverity::Error)
}

/// Whether waiting may mend what is wrong: the database is away, starts, stops, is full or takes no writes, a name
/// can't be looked up. Not so where something is wrong with what was asked or how it is set up: classes 28
/// (authorization), 3D (no such database) and 42 (access rule violation) of PostgreSQL, appendix A; a file, a
/// certificate.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => !is_of_class(error, &["28", "3D", "42"]),
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

fn without_connection(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(why) => refused_certificate(why, "sslrootcert of DATABASE_URL"),
        sqlx::Error::Tls(why) => Some(format!("no TLS connection: {why}")),
        _ => None,
    }
    .unwrap_or_else(|| error.to_string())
}

/// Whether the same statement fails again with the same data: data exceptions (class 22), integrity violations (23) and
/// errors raised by somebody's trigger (P0) (PostgreSQL, appendix A).
pub fn is_about_the_data(error: &sqlx::Error) -> bool {
    is_of_class(error, &["22", "23", "P0"])
}

/// Whether an error is about the connection or the server, not about the statement: classes 08 (connection exception)
/// and 57 (operator intervention: the server stops, or a person has ended the session), and what is no answer of a
/// server at all (PostgreSQL, appendix A).
pub(super) fn is_about_the_connection(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        // 57014: this statement alone was cancelled.
        Some(_) => is_of_class(error, &["08", "57P"]),
        None => !matches!(error, sqlx::Error::RowNotFound | sqlx::Error::PoolTimedOut),
    }
}

fn is_of_class(error: &sqlx::Error, classes: &[&str]) -> bool {
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}
