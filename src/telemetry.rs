//! What people read: logs, for them by default and as JSON lines on request, and errors in one line. Traces,
//! for the systems that collect them, on request.

mod collector;
pub(crate) mod failure_log;
pub(crate) mod log_throttle;
mod panics;
pub(crate) mod traces;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::OutputQueue;

/// What the database's library says with words of others in it: the server's notices, of which those of somebody's
/// trigger may say anything; and mistakes in its URL and password file, quoted. Last, so that no filter brings it back.
const NEVER_LOGGED: &str = "sqlx::postgres::notice=off,sqlx_postgres::options=off";
/// How long the end of the process waits for a reader of its last lines.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

/// The counter of lines that found no room, because nobody reads the log.
pub(crate) const LOG_LINES_DROPPED: &str = "signaling_log_lines_dropped_total";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Standard error. Logs and errors share its queue, so that they come out in order.
static STDERR: OnceLock<OutputQueue> = OnceLock::new();

/// Standard error, for as long as this lives: then the last lines are written, also when the process ends by a panic.
pub(crate) struct Stderr(OutputQueue);

impl Stderr {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(crate) fn start() -> io::Result<Self> {
        let queue = OutputQueue::start(io::stderr(), |dropped_lines| {
            tracing::warn!(
                event = "log_lines_dropped",
                dropped_lines,
                "log lines were dropped, because nobody read the log or it could not be written: check what reads it, or log less"
            );
        })?;
        Ok(Self(STDERR.get_or_init(|| queue).clone()))
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES);
    }
}

/// Prints a line on standard error, whatever the log's filter is.
pub(crate) fn print_stderr(line: &str) {
    if let Some(stderr) = STDERR.get() {
        stderr.push_line(line);
    }
}

/// How many lines of the log were dropped.
pub(crate) fn dropped_lines() -> u64 {
    STDERR.get().map_or(0, OutputQueue::dropped_lines)
}

/// Sets up logs on standard error, also of panics.
///
/// # Errors
/// Where the filter can't be read, or logs are set up already.
pub(crate) fn init(
    stderr: &Stderr,
    filter: &str,
    format: LogFormat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(format!("{filter},{NEVER_LOGGED}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr.0.clone())
        // The layer would print its own errors past the queue, and block.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    panics::log_panics();
    Ok(())
}
