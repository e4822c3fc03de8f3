//! Errors as one line of text for people: without row contents, without a repeated cause.

use std::error::Error;

use sqlx::postgres::PgDatabaseError;

use crate::sanitize;
use crate::tls::rejected_certificate;

/// SQLSTATE of `raise exception` without a code. The schema's own functions give their exceptions other codes.
const RAISED: &str = "P0001";
const MAX_ERROR_BYTES: usize = 1_000;

/// Describes a database error by the server's message and hint. The detail is left out because it repeats the row. The
/// text of an exception in a user's trigger is left out because it may repeat a payload.
pub(crate) fn database_error_text(error: &sqlx::Error) -> String {
    let Some(database_error) = error.as_database_error() else {
        return match error {
            sqlx::Error::Io(why) => rejected_certificate(why, "sslrootcert of DATABASE_URL"),
            sqlx::Error::Tls(why) => Some(format!("no TLS connection: {why}")),
            _ => None,
        }
        .unwrap_or_else(|| error.to_string());
    };
    let message = database_error.message();
    let of_postgres = database_error.try_downcast_ref::<PgDatabaseError>();
    if database_error.code().as_deref() == Some(RAISED)
        || of_postgres.is_some_and(is_raised_elsewhere)
    {
        return "a trigger or function outside of the schema signaling refused it (raise exception): the server's log has the reason".into();
    }
    if of_postgres.is_some_and(|error| error.routine() == Some("check_enable_rls")) {
        return format!(
            "{message}: row-level security holds for the owner of the schema's functions, or for this role (`worker check` names the tables and what to do)"
        );
    }
    match of_postgres.and_then(PgDatabaseError::hint) {
        Some(hint) => format!("{message} ({hint})"),
        None => message.to_owned(),
    }
}

/// True for an exception that a function outside of the schema raised. Its text may contain a payload, with any code. The
/// context names the function in every language.
fn is_raised_elsewhere(error: &PgDatabaseError) -> bool {
    let innermost = error.r#where().and_then(|context| context.lines().next());
    error.routine() == Some("exec_stmt_raise")
        && !innermost.is_some_and(|line| line.contains("signaling."))
}

/// Describes an error with its causes, in one bounded line. A cause is skipped if the line has the same text already.
pub(crate) fn error_chain_text(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let database_error = error.downcast_ref();
        let cause = database_error.map_or_else(|| error.to_string(), database_error_text);
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        // sqlx repeats a database error as its own cause, in more words.
        next = match database_error {
            Some(_) => None,
            None => error.source(),
        };
    }
    text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
    sanitize::text(&text, MAX_ERROR_BYTES)
}

/// Describes an error of a connection to another server. `trusted_in` is the setting that names the certificates to trust.
pub(crate) fn connection_error_text(error: &(dyn Error + 'static), trusted_in: &str) -> String {
    rejected_certificate(error, trusted_in).unwrap_or_else(|| error_chain_text(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = std::io::Error::other("refused");
        let outer = anyhow::Error::new(inner)
            .context("the database fails: refused")
            .context("no start");
        assert_eq!(
            error_chain_text(outer.as_ref()),
            "no start: the database fails: refused"
        );
    }
}
