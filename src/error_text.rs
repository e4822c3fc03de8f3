//! Errors as one line of text for people: without row contents, without a repeated cause.

use sqlx::postgres::PgDatabaseError;

use crate::sanitize;
use crate::tls::refused_certificate;

/// SQLSTATE of an exception that was raised without another one. The schema's own functions give others.
const RAISED: &str = "P0001";

/// Describes a database error by the server's message and hint. The detail is left out because it repeats the row. The
/// text that a user's trigger has raised is left out because it may repeat a payload.
pub(crate) fn database_error_text(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return without_connection(error);
    };
    let of_postgres = error.try_downcast_ref::<PgDatabaseError>();
    if error.code().as_deref() == Some(RAISED) || of_postgres.is_some_and(is_raised_elsewhere) {
        return "somebody's trigger or function refused it (raise exception): the server's log says why".into();
    }
    if of_postgres.is_some_and(|error| error.routine() == Some("check_enable_rls")) {
        return format!(
            "{}: row-level security holds for the owner of the schema's functions, or for this role (`worker check` names the tables and what to do)",
            error.message()
        );
    }
    let hint = of_postgres.and_then(PgDatabaseError::hint);
    match hint {
        Some(hint) => format!("{} ({hint})", error.message()),
        None => error.message().to_owned(),
    }
}

/// True for an exception that a function outside of the schema raised: its text may contain a payload, whatever its code. The
/// context names the function in every language.
fn is_raised_elsewhere(error: &PgDatabaseError) -> bool {
    let innermost = error.r#where().and_then(|context| context.lines().next());
    error.routine() == Some("exec_stmt_raise")
        && !innermost.is_some_and(|line| line.contains("signaling."))
}

fn without_connection(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(why) => refused_certificate(why, "sslrootcert of DATABASE_URL"),
        sqlx::Error::Tls(why) => Some(format!("no TLS connection: {why}")),
        _ => None,
    }
    .unwrap_or_else(|| error.to_string())
}

/// The most bytes of an error's line.
const MAX_ERROR_BYTES: usize = 1_000;

/// Describes an error with its causes, in one bounded line. A cause whose text the line already has is skipped.
pub(crate) fn error_chain_text(error: &(dyn std::error::Error + 'static)) -> String {
    let words = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref() {
        Some(error) => database_error_text(error),
        None => error.to_string(),
    };
    let mut text = words(error);
    let mut cause = if error.is::<sqlx::Error>() {
        None
    } else {
        error.source()
    };
    while let Some(error) = cause {
        let next = words(error);
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        // sqlx repeats a database error as its own cause, in more words.
        cause = if error.is::<sqlx::Error>() {
            None
        } else {
            error.source()
        };
    }
    text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
    sanitize::text(&text, MAX_ERROR_BYTES)
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
