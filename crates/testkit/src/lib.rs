//! Throwaway `PostgreSQL` servers, and commands in the foreground: for `worker dev`, the tests and the benchmark.
#![allow(clippy::missing_errors_doc, reason = "each error says what failed")]

pub mod foreground;
pub mod postgres;

use std::ffi::OsStr;

use tokio::process::Command;

/// A command that does not inherit settings of the worker or of a proxy: a setting would reach the command,
/// and a proxy would receive its calls.
pub fn command_without_settings(program: impl AsRef<OsStr>) -> Command {
    const SETTINGS: &str = "AGORA_ WORKER_ DATABASE_URL PG SIMULATOR_ OTEL_";
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        let mut prefixes = SETTINGS.split(' ');
        let is_setting = prefixes.any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy");
        // The path of PostgreSQL's programs is a property of the machine.
        if is_setting && name != "WORKER_PG_BINDIR" {
            command.env_remove(&variable);
        }
    }
    command
}
