//! Logs panics. The standard hook writes to standard error itself, so a stalled reader would block the thread. It also prints
//! any panic message, and a message may contain a payload or a secret.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::sanitize;

const MAX_BACKTRACE_CHARS: usize = 8_000;
/// Beginnings of the standard library's messages that contain only numbers.
const NUMERIC_MESSAGES: [&str; 3] = [
    "index out of bounds: the len is ",
    "range start index ",
    "range end index ",
];

pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured)
        .then(|| sanitize::text(&backtrace.to_string(), MAX_BACKTRACE_CHARS));
    tracing::error!(
        event = "panicked",
        location = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        panic = message(panic),
        backtrace,
        "the worker has a defect: report this line and the output of `worker --version`. RUST_BACKTRACE=1 adds a backtrace"
    );
}

/// The message, if it can't contain a payload or a secret.
fn message<'panic>(panic: &'panic PanicHookInfo<'_>) -> &'panic str {
    let payload = panic.payload();
    if let Some(literal) = payload.downcast_ref::<&'static str>() {
        return literal;
    }
    match payload.downcast_ref::<String>() {
        Some(text) if NUMERIC_MESSAGES.iter().any(|start| text.starts_with(start)) => text,
        _ => "the message is not shown, because it may contain a payload or a secret",
    }
}
