//! Logs panics. The standard hook writes to standard error itself, so a stalled reader would block the thread. It also prints
//! any panic message, and a message may contain a payload or a secret.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::sanitize;

const MAX_BACKTRACE_CHARS: usize = 8_000;
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
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
