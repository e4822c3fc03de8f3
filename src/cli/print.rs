//! Prints on standard output, for commands that end. The standard library's macros would panic on a closed pipe or a full
//! disk.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use crate::outbox::AdminError;
use crate::sanitize;

/// The most characters of a text from the database or the API that a line shows.
const MAX_SHOWN_CHARS: usize = 1_000;

/// A text from the database or the API, for a line of output: without control characters, and cut to a maximum length.
pub(super) fn one_line(text: &str) -> String {
    sanitize::text(text, MAX_SHOWN_CHARS)
}

/// A heading, and an indented line for each name and value.
pub(super) fn block(heading: &str, lines: &[(&str, String)]) -> String {
    let mut text = format!("{heading}\n");
    for (name, value) in lines {
        writeln!(text, "  {name:<10} {value}").ok();
    }
    text
}

/// A line of a [`block`] with advice about the line before.
pub(super) fn advice(text: &str) -> (&'static str, String) {
    ("", format!("-> {text}"))
}

pub(super) fn messages(count: i64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} message{plural}")
}

/// Prints a text. A closed pipe is no error, because a reader like `head` may stop early: the command finishes its work,
/// and the exit code reports that work.
///
/// Fails if standard output can't be written, as on a full disk.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    // Without a flush, an error would be lost when the process ends.
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output can't be written"),
    }
}

pub(crate) fn print_line(line: impl Into<String>) -> anyhow::Result<()> {
    print(line.into() + "\n")
}

/// Prints the report of a change. An operator whose disk is full must not take a missing report for a missing change.
pub(super) fn report(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    print(text).context("the command is done, but its report could not be written")
}

/// Adds the finished steps to the error of a later step. Without them, an operator would believe that nothing was changed.
/// `did`: such as `cancelled 5 messages`.
pub(super) fn after_steps<T>(
    step: Result<T, AdminError>,
    done: i64,
    did: &str,
) -> anyhow::Result<T> {
    match step {
        Err(error) if done > 0 => Err(error).context(format!(
            "the command {did} before this error, so run it again for the rest"
        )),
        step => Ok(step?),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_step_names_the_work_of_earlier_steps() {
        let failed = |done| {
            let step = Err::<(), _>(AdminError::Refused("no such app".into()));
            let error = after_steps(step, done, "cancelled 5 messages").expect_err("failed");
            format!("{error:#}")
        };
        assert_eq!(failed(0), "no such app");
        assert_eq!(
            failed(5),
            "the command cancelled 5 messages before this error, so run it again for the rest: no such app"
        );
    }
}
