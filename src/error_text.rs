//! Errors as one line of text for people: without row contents, without a repeated cause.

use std::error::Error;
use std::fmt::Write;

use sqlx::postgres::PgDatabaseError;

use crate::advice;
use crate::outbox::is_password_refused;
use crate::sanitize;
use crate::tls::rejected_certificate;

const MAX_ERROR_BYTES: usize = 1_000;
/// Bounds the name of a function, which includes the types of its arguments.
const MAX_FUNCTION_BYTES: usize = 200;

/// Describes a database error by the server's message and hint. Leaves out the detail, because it repeats the row. Leaves out
/// a message that may repeat a payload: one of an application's trigger or function, or one that quotes a value. The line then
/// has the SQLSTATE and the place.
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
    if is_password_refused(error) {
        return format!("{message}: {}", advice::LOGIN_REFUSED);
    }
    let Some(error) = database_error.try_downcast_ref::<PgDatabaseError>() else {
        return message.to_owned();
    };
    if error.routine() == Some("check_enable_rls") {
        return row_security_text(error);
    }
    let mut facts = format!("SQLSTATE {}", error.code());
    // Writing into a string does not fail.
    if let Some(table) = error.table() {
        let schema = error.schema().unwrap_or_default();
        write!(facts, ", table {schema}.{table}").ok();
    }
    if let Some(constraint) = error.constraint() {
        write!(facts, ", constraint {constraint}").ok();
    }
    // As in `invalid input syntax for type integer: "…"`. 22023 quotes a setting's name.
    let code = error.code();
    let quotes_a_value = code.starts_with("22") && code != "22023" && message.contains('"');
    if let Some(function) = context(error).find_map(function_of_application) {
        format!(
            "the application's function {function} refused it: the server's log has the message ({facts})"
        )
    } else if quotes_a_value {
        format!(
            "a trigger, a function or a constraint refused it: the server's log has the message ({facts})"
        )
    } else if error.table().is_some() || error.constraint().is_some() {
        format!("{message} ({facts})")
    } else {
        error
            .hint()
            .map_or_else(|| message.to_owned(), |hint| format!("{message} ({hint})"))
    }
}

/// The context of an error, the innermost call first. A line that is not about a function may quote a statement.
fn context(error: &PgDatabaseError) -> impl Iterator<Item = &str> {
    error.r#where().unwrap_or_default().lines()
}

/// The name of the application's function in a line like `PL/pgSQL function shop.audit() line 3 at RAISE`.
fn function_of_application(line: &str) -> Option<&str> {
    let (language, function) = line.split_once(" function ")?;
    let name = function.split(" line ").next()?;
    let is_foreign = language.starts_with("PL/") && !name.starts_with("signaling.");
    is_foreign.then(|| &name[..name.floor_char_boundary(MAX_FUNCTION_BYTES)])
}

/// Names the role that row-level security stops: the owner of the schema's functions, or the session's role. Postgres names
/// functions in the language SQL without their schema, and the application has none that reads these tables with other privileges.
fn row_security_text(error: &PgDatabaseError) -> String {
    let of_schema = ["SQL function ", "PL/pgSQL function signaling."];
    let is_of_schema = context(error).any(|line| of_schema.iter().any(|of| line.starts_with(of)));
    let (holds, action) = if is_of_schema {
        (
            "is forced for the owner of the schema's functions",
            advice::FORCED_ROW_SECURITY,
        )
    } else {
        ("holds for this role", advice::ROW_SECURITY)
    };
    let message = error.message();
    format!(
        "{message}: row-level security {holds}. To do: {action}. `worker check` names the tables"
    )
}

/// Describes an error with its causes, in one bounded line. Skips a cause whose text the line has already.
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
    fn a_repeated_cause_is_shown_once() {
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
