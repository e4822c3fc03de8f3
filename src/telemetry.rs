//! Logs, errors of commands, and traces. Logs and errors go to standard error through a queue, so that a reader that stops
//! can't block a send.

pub(crate) mod failure_log;
pub(crate) mod log_throttle;
pub(crate) mod traces;

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::sanitize;
use log_throttle::LogThrottle;

/// Targets of sqlx whose events may show a secret: a trigger may put a payload into a notice, and sqlx quotes a mistake in the
/// URL or the password file. The pool's event repeats `listener_lost`.
const NEVER_LOGGED: [&str; 3] = [
    "sqlx::postgres::notice",
    "sqlx_postgres::options",
    "sqlx_core::pool",
];
/// How long a process waits at its exit for the reader of its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Bounds the memory while the reader of the log stalls. At 500 calls/s, lines of level debug fill the queue in ten seconds.
const MAX_QUEUED_LINES: usize = 8 * 1024;
/// Longer than any line of the worker. Without it, long lines of a library could fill the memory while the reader stalls.
const MAX_LINE_BYTES: usize = 16 * 1024;
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
static STDERR: OnceLock<Queue> = OnceLock::new();
static FAILED_WRITES: AtomicUsize = AtomicUsize::new(0);

/// The queue of standard error, whose lines a thread writes. Its drop writes the last lines, also when the process ends by a
/// panic.
pub(crate) struct Stderr(Option<WorkerGuard>);

impl Stderr {
    pub(crate) fn start() -> Self {
        let queue = NonBlockingBuilder::default().buffered_lines_limit(MAX_QUEUED_LINES);
        let (queue, guard) = queue.finish(Sink {
            output: io::stderr(),
            dropped: 0,
            reported: 0,
            reports: LogThrottle::default(),
        });
        STDERR.set(Queue(queue)).ok();
        Self(Some(guard))
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        // The guard prints on standard output if the queue is full. A stalled reader would block this, and the exit.
        let (ended, end) = sync_channel::<()>(0);
        let guard = self.0.take();
        let write_last_lines = move || drop((guard, ended));
        thread::Builder::new().spawn(write_last_lines).ok();
        end.recv_timeout(LAST_LINES).ok();
    }
}

/// Queues lines, and cuts long ones. Each event is one write.
#[derive(Debug, Clone)]
struct Queue(NonBlocking);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_long = line.len() > MAX_LINE_BYTES;
        let cut = is_long.then(|| [&line[..MAX_LINE_BYTES], b"\n"].concat());
        self.0.write_all(cut.as_deref().unwrap_or(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts failed writes, and logs the number of dropped lines once the output takes lines again.
struct Sink<W> {
    output: W,
    /// Dropped lines at the last write.
    dropped: usize,
    /// Dropped lines that the log has reported.
    reported: usize,
    reports: LogThrottle,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.output.write_all(line) {
            FAILED_WRITES.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        let dropped = dropped_lines();
        // A full queue would drop the report, too.
        let has_room = dropped == mem::replace(&mut self.dropped, dropped);
        if has_room && dropped > self.reported && self.reports.admit().is_some() {
            tracing::warn!(
                event = "log_lines_dropped",
                dropped_lines = dropped - self.reported,
                "log lines were dropped, because the reader of standard error is too slow or a write failed: check the log collector and its disk, or log less"
            );
            self.reported = dropped;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Prints a line on standard error. The filter of the log does not apply.
pub(crate) fn print_stderr(line: &str) {
    if let Some(mut stderr) = STDERR.get().cloned() {
        stderr.write_all(format!("{line}\n").as_bytes()).ok();
    }
}

pub(crate) fn dropped_lines() -> usize {
    let queue = STDERR.get();
    let dropped = queue.map_or(0, |queue| queue.0.error_counter().dropped_lines());
    dropped + FAILED_WRITES.load(Ordering::Relaxed)
}

/// Sets up the log, also for panics.
///
/// Fails if the filter is invalid, or the log is set up already.
pub(crate) fn init(
    filter: &str,
    format: LogFormat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    // A filter of its own, because a more specific directive of the operator would override a directive of this program.
    let without_secrets = filter_fn(|metadata| {
        let mut never_logged = NEVER_LOGGED.iter();
        !never_logged.any(|target| metadata.target().starts_with(target))
    });
    let queue = STDERR.get().ok_or("standard error has no queue")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| queue.clone())
        // The layer would print its own errors without the queue, and block.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(without_secrets);
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
    let backtrace = Backtrace::capture().to_string();
    tracing::error!(
        event = "panicked",
        location = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        panic = literal.unwrap_or(&"(not shown: it may contain a payload or a secret)"),
        backtrace = sanitize::text(&backtrace, MAX_BACKTRACE_CHARS),
        "the worker has a defect: report this line and the output of `worker --version`. RUST_BACKTRACE=1 adds a backtrace"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc::{Receiver, SyncSender};

    const LIMIT: Duration = Duration::from_secs(30);

    /// Each write shows its line, and waits for a result from the test.
    struct Reader {
        taken: SyncSender<Vec<u8>>,
        results: Receiver<io::Result<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.taken.send(line.to_vec()).expect("the test goes on");
            self.results.recv().expect("the test goes on")?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_blocks_no_line_and_lines_after_a_failed_write_are_written() {
        let (taken, lines) = sync_channel(1);
        let (allow, results) = sync_channel(1);
        let sink = Sink {
            output: Reader { taken, results },
            dropped: 0,
            reported: 0,
            reports: LogThrottle::default(),
        };
        let queue = NonBlockingBuilder::default().buffered_lines_limit(2);
        let (queue, _guard) = queue.finish(sink);
        let mut queue = Queue(queue);
        let mut log = |line: &str| queue.write_all(line.as_bytes()).expect("no error");
        let next = || lines.recv_timeout(LIMIT).expect("a line");

        log("one\n");
        assert_eq!(next(), b"one\n");
        log("two\n");
        log(&("x".repeat(2 * MAX_LINE_BYTES) + "\n"));
        log("dropped\n");
        let failed_before = FAILED_WRITES.load(Ordering::Relaxed);
        let full = io::ErrorKind::StorageFull.into();
        allow.send(Err(full)).expect("the reader waits");
        assert_eq!(next(), b"two\n");
        assert_eq!(FAILED_WRITES.load(Ordering::Relaxed), failed_before + 1);
        allow.send(Ok(())).expect("the reader waits");
        let cut = next();
        assert_eq!(cut.len(), MAX_LINE_BYTES + 1);
        assert!(cut.ends_with(b"x\n"));
        allow.send(Ok(())).expect("the reader waits");
        assert_eq!(queue.0.error_counter().dropped_lines(), 1);
    }
}
