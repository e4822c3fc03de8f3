//! What people read: logs, for them by default and as JSON lines on request, and errors in one line. Traces,
//! for the systems that collect them, on request.

mod collector;
pub(crate) mod log_throttle;
pub(crate) mod traces;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What the database's library says with words of others in it: the server's notices, of which those of somebody's
/// trigger may say anything; and mistakes in its URL and password file, quoted. Last, so that no filter brings it back.
const NEVER_LOGGED: &str = "sqlx::postgres::notice=off,sqlx_postgres::options=off";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up logs on standard error.
///
/// # Errors
/// Where the filter can't be read, or logs are set up already.
pub(crate) fn init(
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
