//! What people read: logs, for them by default and as JSON lines on request, and errors in one line. Traces,
//! for the systems that collect them, on request.

mod collector;
pub mod traces;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::outbox::explain;
use crate::sanitize;

/// What the database's library says with words of others in it: the server's notices, of which those of somebody's
/// trigger may say anything; and mistakes in its URL and password file, quoted. Last, so that no filter brings it back.
const NEVER_LOGGED: &str = "sqlx::postgres::notice=off,sqlx_postgres::options=off";

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up logs on standard error.
///
/// # Errors
/// Where the filter can't be read, or logs are set up already.
pub fn init(
    filter: &str,
    format: LogFormat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(format!("{filter},{NEVER_LOGGED}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

/// The most bytes of an error's line.
const MAX_ERROR_BYTES: usize = 1_000;

/// An error with its causes, in one bounded line. A cause that its error already tells of is not told twice.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let words = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref() {
        Some(error) => explain(error),
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
        // What an error of the database is caused by is the same again, in more words.
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
            causes(outer.as_ref()),
            "no start: the database fails: refused"
        );
    }
}
