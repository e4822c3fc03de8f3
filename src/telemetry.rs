//! Logs, errors of commands, and traces. Logs and errors go to standard error through a queue, so that a reader that stops
//! can't block a send.

pub(crate) mod failure_log;
pub(crate) mod log_throttle;
pub(crate) mod traces;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::OutputQueue;
use crate::sanitize;

/// Events of sqlx that may show a secret: a trigger may put a payload into a notice, and a mistake in the URL or the password
/// file is quoted. The pool's event repeats `listener_lost`. These directives come last, so that no filter of the operator
/// overrides them.
const NEVER_LOGGED: &str =
    "sqlx::postgres::notice=off,sqlx_postgres::options=off,sqlx_core::pool=off";
/// How long a process that ends waits for the reader of its last lines.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

const MAX_BACKTRACE_CHARS: usize = 8_000;

pub(crate) const LOG_LINES_DROPPED: &str = "signaling_log_lines_dropped_total";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines of text, coloured on a terminal
    Text,
    /// One JSON object a line
    Json,
}

/// Logs and errors share this queue, so that their lines keep their order.
static STDERR: OnceLock<OutputQueue> = OnceLock::new();

/// The queue of standard error. Its drop writes the last lines, also when the process ends by a panic.
pub(crate) struct Stderr(OutputQueue);

impl Stderr {
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn start() -> io::Result<Self> {
        let queue = OutputQueue::start(io::stderr(), |dropped_lines| {
            tracing::warn!(
                event = "log_lines_dropped",
                dropped_lines,
                "log lines were dropped, because the reader of standard error is too slow or a write failed: check the log collector and its disk, or log less"
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

/// Prints a line on standard error. The filter of the log does not apply.
pub(crate) fn print_stderr(line: &str) {
    if let Some(stderr) = STDERR.get() {
        stderr.push_line(line);
    }
}

pub(crate) fn dropped_lines() -> u64 {
    STDERR.get().map_or(0, OutputQueue::dropped_lines)
}

/// Sets up the log, which includes panics.
///
/// # Errors
/// If the filter is invalid, or the log is set up already.
pub(crate) fn init(
    stderr: &Stderr,
    filter: &str,
    format: LogFormat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(format!("{filter},{NEVER_LOGGED}"))?;
    let queue = stderr.0.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || queue.clone())
        // The layer would print its own errors without the queue, and block.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic. The standard hook writes to standard error itself, so a stalled reader would block the thread. It also prints
/// any panic message, and a message may contain a payload or a secret.
fn log_panic(panic: &PanicHookInfo<'_>) {
    // A literal can't contain a payload or a secret.
    let literal = panic.payload().downcast_ref::<&'static str>();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured)
        .then(|| sanitize::text(&backtrace.to_string(), MAX_BACKTRACE_CHARS));
    tracing::error!(
        event = "panicked",
        location = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        panic = literal.unwrap_or(&"(not shown: it may contain a payload or a secret)"),
        backtrace,
        "the worker has a defect: report this line and the output of `worker --version`. RUST_BACKTRACE=1 adds a backtrace"
    );
}
