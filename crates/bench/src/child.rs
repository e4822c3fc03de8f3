//! The processes under measurement: this program again, each time as something else.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to end in order: a worker waits for its calls.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the names of settings begin with: none of the user's own reaches a child.
const SETTINGS: [&str; 5] = ["AGORA_", "DATABASE_URL", "OTEL_", "SIMULATOR_", "WORKER_"];

/// A process that ends with this one, unless this one is killed.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: Process,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with other arguments, and no settings but these.
    pub(super) fn start(
        name: &'static str,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Self::start_under(&[], name, arguments, settings)
    }

    /// The same under another program, which is named with its own arguments; empty for none.
    pub(super) fn start_under(
        under: &[String],
        name: &'static str,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where this program is can't be told")?;
        let mut command = if let Some((other, its_arguments)) = under.split_first() {
            let mut command = Command::new(other);
            command.args(its_arguments).arg(program);
            command
        } else {
            Command::new(program)
        };
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if SETTINGS.iter().any(|start| text.starts_with(start)) {
                command.env_remove(&variable);
            }
        }
        let mut process = command
            .args(arguments)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the {name} can't be started"))?;
        let stdout = process.stdout.take().context("it has no output")?;
        Ok(Self {
            name,
            process,
            output: BufReader::new(stdout).lines(),
        })
    }

    /// The rest of the first line of its output that begins so.
    pub(super) async fn says(&mut self, start: &str) -> anyhow::Result<String> {
        while let Some(line) = self.output.next_line().await? {
            if let Some(rest) = line.strip_prefix(start) {
                return Ok(rest.trim().to_owned());
            }
        }
        bail!("the {} has ended before it was ready", self.name)
    }

    /// Its process ID, while it runs.
    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        let name = self.name;
        self.process
            .id()
            .with_context(|| format!("the {name} has ended by itself"))
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid()?.to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().await?;
        let name = self.name;
        let ended = timeout(PATIENCE, self.process.wait())
            .await
            .with_context(|| format!("the {name} does not end"))??;
        if !asked.success() || !ended.success() {
            bail!("the {} did not end in order: {ended}", self.name);
        }
        Ok(())
    }
}
