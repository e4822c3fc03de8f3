//! Runs the command of `worker dev -- COMMAND`, and forwards signals to it.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use rustix::process::{Pid, Signal as SignalNumber, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::SignalKind;

use crate::cli::signals::Signals;
use crate::telemetry::print_stderr;

/// The exit code of shells for a command that can't be started.
const NOT_STARTED: u8 = 127;
/// Shells add this to the number of the signal that killed a command.
const KILLED_BY_SIGNAL: i32 = 128;

/// The signals that `worker dev` forwards to its command.
pub(super) fn forwarded_signals() -> anyhow::Result<Signals> {
    Signals::listen([
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
        SignalKind::hangup(),
    ])
}

/// Runs the command until it ends, and returns the exit code for this process.
pub(super) async fn run(
    words: &[OsString],
    environment: &[(&str, String)],
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let (program, arguments) = words.split_first().context("there is no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = program.to_string_lossy();
            print_stderr(&format!(
                "error: `{program}` can't be started: {error}\n  -> {}",
                advice(&error)
            ));
            return Ok(NOT_STARTED.into());
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => {
                return Ok(exit_code(status.context("the command's end is unknown")?));
            }
            kind = signals.next() => forward(kind, &child),
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "install the program, or write its path; a shell's own syntax needs `sh -c '...'`"
        }
        ErrorKind::PermissionDenied => "name a file that this user may execute (`chmod +x`)",
        _ => "run the command without `worker dev` to see if it starts at all",
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let killed_by = status.signal().map(|signal| KILLED_BY_SIGNAL + signal);
    let code = status.code().or(killed_by).unwrap_or(1);
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The exit code of a shell whose command is killed by the signal.
pub(super) fn killed_by(kind: SignalKind) -> ExitCode {
    exit_code(ExitStatus::from_raw(kind.as_raw_value()))
}

fn forward(kind: SignalKind, child: &Child) {
    // The terminal in whose foreground this process runs sends the signal of a key to the command also. Many programs end
    // at once, without cleaning up, at the second Ctrl-C.
    let is_key = kind == SignalKind::interrupt() || kind == SignalKind::quit();
    if is_key && tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp()) {
        return;
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let pid = pid.and_then(Pid::from_raw);
    let number = SignalNumber::from_named_raw(kind.as_raw_value());
    if let (Some(pid), Some(number)) = (pid, number) {
        // The signal fails only for a command that has just ended.
        kill_process(pid, number).ok();
    }
}
