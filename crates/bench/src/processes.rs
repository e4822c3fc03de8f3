//! The processes that send: the worker, or the hand-written loop of this program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::command_without_settings;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A worker finishes its open calls after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a process. Dropping the returned value kills the process.
pub(crate) fn start(
    program: &Path,
    arguments: &[&str],
    settings: &[(&str, String)],
) -> anyhow::Result<Child> {
    command_without_settings(program)
        .args(arguments)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} can't be started", program.display()))
}

/// Sends SIGTERM, and waits for the end with exit code 0.
pub(crate) async fn stop(mut process: Child) -> anyhow::Result<()> {
    let pid = pid(&process)?.to_string();
    let kill = Command::new("kill").args(["-TERM", &pid]).status().await?;
    ensure!(kill.success(), "SIGTERM can't be sent to the sender");
    let status = timeout(STOP_TIMEOUT, process.wait())
        .await
        .context("the sender did not end after SIGTERM")??;
    ensure!(
        status.success(),
        "the sender failed after SIGTERM: {status}"
    );
    Ok(())
}

pub(crate) fn pid(process: &Child) -> anyhow::Result<u32> {
    process.id().context("the sender ended by itself")
}
