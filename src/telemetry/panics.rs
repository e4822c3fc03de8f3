//! Panics in the log. The standard hook writes to standard error itself, where a reader that stalls would stop the thread,
//! and prints any message, in which a payload or a secret may stand.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::sanitize;

/// How much of a backtrace is logged, in characters.
const MAX_BACKTRACE_CHARS: usize = 8_000;
/// Messages of the standard library that are made of numbers alone begin so.
const NUMBERS_ALONE: [&str; 3] = [
    "index out of bounds: the len is ",
    "range start index ",
    "range end index ",
];

/// Logs each panic from now on. The caller that catches a panic logs the consequence.
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
        "this program has a defect: please report this line and its version. RUST_BACKTRACE=1 adds a backtrace"
    );
}

/// The message, unless values stand in it.
fn message<'panic>(panic: &'panic PanicHookInfo<'_>) -> &'panic str {
    let payload = panic.payload();
    if let Some(literal) = payload.downcast_ref::<&'static str>() {
        return literal;
    }
    match payload.downcast_ref::<String>() {
        Some(text) if NUMBERS_ALONE.iter().any(|start| text.starts_with(start)) => text,
        _ => "the message is not shown, because values stand in it",
    }
}
