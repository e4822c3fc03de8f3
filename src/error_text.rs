//! Errors as one line of text for people: without row contents, without a repeated cause.

mod application;

use std::error::Error;

use sqlx::postgres::PgDatabaseError;

use crate::advice;
use crate::sanitize;
use crate::tls::rejected_certificate;
use application::{ApplicationError, is_of_schema};

const MAX_ERROR_BYTES: usize = 1_000;

/// Describes a database error by the server's message and hint. An error that the application's own trigger, function or
/// constraint causes also shows its SQLSTATE and its place. The detail is left out because it repeats the row. A message
/// that may repeat a payload is left out.
pub(crate) fn database_error_text(error: &sqlx::Error) -> String {
    let Some(database_error) = error.as_database_error() else {
        return match error {
            sqlx::Error::Io(why) => rejected_certificate(why, "sslrootcert of DATABASE_URL"),
            sqlx::Error::Tls(why) => Some(format!("no TLS connection: {why}")),
            _ => None,
        }
        .unwrap_or_else(|| error.to_string());
    };
    let Some(postgres) = database_error.try_downcast_ref::<PgDatabaseError>() else {
        return database_error.message().to_owned();
    };
    if postgres.routine() == Some("check_enable_rls") {
        return row_security_text(postgres);
    }
    let message = match postgres.hint() {
        Some(hint) => format!("{} ({hint})", postgres.message()),
        None => postgres.message().to_owned(),
    };
    let Some(application) = ApplicationError::of(postgres) else {
        return message;
    };
    if application.may_show_payload {
        format!(
            "{application} refused it: the server's log has the message ({})",
            application.facts()
        )
    } else {
        format!("{message} ({}; {application})", application.facts())
    }
}

/// A function of the schema has the rights of its owner. Any other statement has those of the session's role.
fn row_security_text(error: &PgDatabaseError) -> String {
    let message = error.message();
    if is_of_schema(error) {
        format!(
            "{message}: row-level security is forced for the owner of the schema's functions. To do: {}. `worker check` names the tables",
            advice::FORCED_ROW_SECURITY
        )
    } else {
        format!(
            "{message}: row-level security holds for this role. To do: {}. `worker check` names the tables",
            advice::ROW_SECURITY
        )
    }
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
