//! Prints on standard output, for commands that end. The macros of the standard library panic where a pipe is closed or a disk is
//! full.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Prints a text. A reader that has seen enough, like `head`, is no failure: the command goes on with its work, and its
/// exit code says what came of that.
///
/// # Errors
/// Where it can't be written, as on a full disk.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text.as_ref()).context("standard output can't be written")
}

/// Prints a line, as [`print`] does.
pub(super) fn print_line(line: impl Into<String>) -> anyhow::Result<()> {
    print(line.into() + "\n")
}

fn print_to(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    // Flushed, because the end of the process drops errors.
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
            crate::telemetry::tell(&format!(
                "error: standard output can't be written: {failure}"
            ));
            1
        }
        _ => code,
    }
}
