//! The processes that the benchmark starts: the worker, the simulated API and the hand-written loop.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to end after SIGTERM: a worker finishes its calls in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Prefixes of settings. The user's own settings must not reach a child: they would change what is measured.
const SETTING_PREFIXES: [&str; 5] = ["AGORA_", "DATABASE_URL", "OTEL_", "SIMULATOR_", "WORKER_"];

/// This program, which is also the hand-written loop and the simulated API.
pub(crate) fn bench_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the path of this program can't be read")
}

/// Runs a program to its end.
///
/// # Errors
/// If it can't be started, or its exit code is not 0; with its output on standard error.
pub(crate) async fn run_to_end(
    program: &Path,
    arguments: &[&str],
    settings: &[(&str, String)],
) -> anyhow::Result<()> {
    let called = format!("`{} {}`", program.display(), arguments.join(" "));
    let output = command(&[], program, arguments, settings)
        .output()
        .await
        .with_context(|| format!("{called} can't be started"))?;
    ensure!(
        output.status.success(),
        "{called} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A process in the background. It is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    name: &'static str,
    process: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Self::start_under(&[], name, program, arguments, settings)
    }

    /// Starts the program under a wrapper such as valgrind, given with its arguments; an empty wrapper is none.
    pub(crate) fn start_under(
        wrapper: &[String],
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut process = command(wrapper, program, arguments, settings)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the {name} can't be started"))?;
        let stdout = process
            .stdout
            .take()
            .context("standard output is not a pipe")?;
        Ok(Self {
            name,
            process,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    /// Reads standard output up to the first line that begins with `prefix`, and returns the rest of that line.
    ///
    /// # Errors
    /// If the process ends before.
    pub(crate) async fn wait_for_line(&mut self, prefix: &str) -> anyhow::Result<String> {
        while let Some(line) = self.stdout.next_line().await? {
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.trim().to_owned());
            }
        }
        bail!("the {} ended before it was ready", self.name)
    }

    /// The process ID.
    ///
    /// # Errors
    /// If the process has ended by itself.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let name = self.name;
        self.process
            .id()
            .with_context(|| format!("the {name} has ended by itself"))
    }

    /// Sends SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If the process does not end in time with exit code 0.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let name = self.name;
        let pid = self.pid()?.to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await?;
        ensure!(kill.success(), "SIGTERM can't be sent to the {name}");
        let status = timeout(STOP_TIMEOUT, self.process.wait())
            .await
            .with_context(|| {
                let seconds = STOP_TIMEOUT.as_secs();
                format!("the {name} did not end within {seconds} s after SIGTERM")
            })??;
        ensure!(
            status.success(),
            "the {name} failed after SIGTERM: {status}"
        );
        Ok(())
    }
}

/// A command with no settings but the given ones.
fn command(
    wrapper: &[String],
    program: &Path,
    arguments: &[&str],
    settings: &[(&str, String)],
) -> Command {
    let mut command = if let Some((wrapper, its_arguments)) = wrapper.split_first() {
        let mut command = Command::new(wrapper);
        command.args(its_arguments).arg(program);
        command
    } else {
        Command::new(program)
    };
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if SETTING_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
