//! Waits for a command in the foreground as a shell does: passes signals on to it, and takes over its exit code.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::Child;
use tokio::signal::unix::SignalKind;

/// The exit code of shells for a command that can't be started.
pub const NOT_STARTED: u8 = 127;
/// Shells add this to the number of the signal that killed a command.
const KILLED_BY_SIGNAL: i32 = 128;

/// Waits until the command ends, and returns its exit code. Passes on each signal that `next_signal` returns.
///
/// # Errors
/// If the command's end is unknown.
pub async fn wait(
    child: &mut Child,
    mut next_signal: impl AsyncFnMut() -> SignalKind,
) -> io::Result<u8> {
    loop {
        tokio::select! {
            // Signals come first. Otherwise the Ctrl-C that ended the command would later count as a second signal.
            biased;
            kind = next_signal() => pass_on(kind, child),
            status = child.wait() => return status.map(exit_code),
        }
    }
}

/// The exit code of a shell whose command is killed by the signal.
pub fn killed_by(kind: SignalKind) -> u8 {
    exit_code(ExitStatus::from_raw(kind.as_raw_value()))
}

fn exit_code(status: ExitStatus) -> u8 {
    let killed_by = status.signal().map(|signal| KILLED_BY_SIGNAL + signal);
    let code = status.code().or(killed_by);
    code.and_then(|code| code.try_into().ok()).unwrap_or(1)
}

fn pass_on(kind: SignalKind, child: &Child) {
    // A terminal sends the signal of a key to all processes in the foreground, so the command has received it already. Many
    // programs end without cleaning up at a second Ctrl-C.
    let is_key = kind == SignalKind::interrupt() || kind == SignalKind::quit();
    // Not standard input, which may be a file.
    let terminal = File::open("/dev/tty");
    let foreground = terminal.ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    if is_key && foreground == Some(getpgrp()) {
        return;
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let pid = pid.and_then(Pid::from_raw);
    let number = Signal::from_named_raw(kind.as_raw_value());
    if let (Some(pid), Some(number)) = (pid, number) {
        // The signal fails only for a command that has just ended.
        kill_process(pid, number).ok();
    }
}
