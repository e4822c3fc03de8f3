//! Prints on standard output, for commands that end. The standard library's macros would panic on a closed pipe or a full
//! disk.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use crate::sanitize;

/// The most characters of a text from the database or the API that a line shows.
const MAX_SHOWN_CHARS: usize = 1_000;

/// A text from the database or the API, for a line of output: without control characters, and cut to a maximum length.
pub(super) fn one_line(text: &str) -> String {
    sanitize::text(text, MAX_SHOWN_CHARS)
}

/// Prints a text. A closed pipe is no error, because a reader like `head` may stop early: the command finishes its work,
/// and the exit code reports that work.
///
/// # Errors
/// If standard output can't be written, as on a full disk.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text.as_ref()).context("standard output can't be written")
}

/// Prints a line, as [`print`] does.
pub(super) fn print_line(line: impl Into<String>) -> anyhow::Result<()> {
    print(line.into() + "\n")
}

/// Prints the report of a change. An operator whose disk is full must not take a missing report for a missing change.
///
/// # Errors
/// As [`print`], with the fate of the change.
pub(super) fn report(text: impl AsRef<[u8]>, has_changed: bool) -> anyhow::Result<()> {
    with_effect(print(text), has_changed)
}

/// Adds the fate of the change to an error of its report.
pub(super) fn with_effect(printed: anyhow::Result<()>, has_changed: bool) -> anyhow::Result<()> {
    printed.context(if has_changed {
        "the change took effect, but its report could not be written"
    } else {
        "there was nothing to change, and the report of that could not be written"
    })
}

/// The result of a query for the report of a change that is committed.
///
/// # Errors
/// The errors of the query, with a text that says that the change took effect.
pub(super) fn after_change<T>(
    result: Result<T, impl std::error::Error + Send + Sync + 'static>,
) -> anyhow::Result<T> {
    result.context("the change took effect, but the database failed before the report of it")
}

/// Prints a value as JSON or as text.
pub(super) fn print_as<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    if json {
        print_line(serde_json::to_string_pretty(value)?)
    } else {
        print(text(value))
    }
}

fn print_to(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    // Without a flush, an error would be lost when the process ends.
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints help, a version, or a mistake in the command line. Returns the exit code.
pub(super) fn print_clap(error: &clap::Error) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(failure) if failure.kind() != ErrorKind::BrokenPipe && !error.use_stderr() => {
            crate::telemetry::print_stderr(&format!(
                "error: standard output can't be written: {failure}"
            ));
            1
        }
        _ => code,
    }
}
