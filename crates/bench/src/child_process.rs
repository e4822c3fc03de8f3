//! The processes that the benchmark starts: the worker, the simulated API and the hand-written loop.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testkit::command_without_settings;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// A worker finishes its open calls after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// This program, which is also the hand-written loop and the simulated API.
pub(crate) fn bench_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the path of this program can't be read")
}

/// A background process. Dropping this value kills the process.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    name: &'static str,
    process: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    pub(crate) fn start(
        name: &'static str,
        program: impl AsRef<OsStr>,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut process = command_without_settings(program)
            .args(arguments)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the {name} can't be started"))?;
        let stdout = process.stdout.take();
        let stdout = stdout.context("standard output is not a pipe")?;
        Ok(Self {
            name,
            process,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    /// Reads standard output up to the first line that begins with `prefix`, and returns the rest of that line.
    pub(crate) async fn wait_for_line(&mut self, prefix: &str) -> anyhow::Result<String> {
        while let Some(line) = self.stdout.next_line().await? {
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.trim().to_owned());
            }
        }
        bail!("the {} ended before it was ready", self.name)
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let pid = self.process.id();
        pid.with_context(|| format!("the {} ended by itself", self.name))
    }

    /// Sends SIGTERM, and waits for the end with exit code 0.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let name = self.name;
        let pid = self.pid()?.to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await?;
        ensure!(kill.success(), "SIGTERM can't be sent to the {name}");
        let status = timeout(STOP_TIMEOUT, self.process.wait())
            .await
            .with_context(|| {
                format!("the {name} did not end within {STOP_TIMEOUT:?} after SIGTERM")
            })??;
        ensure!(
            status.success(),
            "the {name} failed after SIGTERM: {status}"
        );
        Ok(())
    }
}
