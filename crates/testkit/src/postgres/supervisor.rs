//! The shell that keeps a cluster. When this process ends, even by SIGKILL, the pipe to the shell closes. Then the shell
//! stops the server and removes its files.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::installation::Installation;

/// The script explains its protocol.
const SCRIPT: &str = include_str!("supervisor.sh");
/// Ten times as long as a slow machine needs for a step.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running supervisor. Dropping it stops the server and removes its files in the background.
pub(super) struct Supervisor {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Supervisor {
    pub(super) fn spawn(
        installation: &Installation,
        parent: &Path,
        server_arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let mut child = installation
            .command("/bin/sh")
            .args(["-c", SCRIPT, "throwaway-postgres"])
            .arg(parent)
            .arg(&installation.bindir)
            .args(server_arguments)
            .current_dir(parent)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal must not stop the database of a worker that is still draining.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start /bin/sh")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, replies) = pipes.context("the shell has no pipes")?;
        Ok(Self {
            child,
            orders,
            replies: BufReader::new(replies),
        })
    }

    /// Sends an order, and waits for the reply that begins with `expected`. Returns the rest of the reply.
    pub(super) async fn ask(
        &mut self,
        order: &str,
        expected: &str,
        doing: &'static str,
    ) -> anyhow::Result<String> {
        let exchange = async {
            // If the shell has ended, its replies have the reason.
            let order = format!("{order}\n");
            self.orders.write_all(order.as_bytes()).await.ok();
            let mut line = String::new();
            self.replies.read_line(&mut line).await?;
            match line.trim_end().strip_prefix(expected) {
                Some(rest) => Ok(rest.trim_start().to_owned()),
                None => Err(self.failure(doing).await),
            }
        };
        timeout(STEP_TIMEOUT, exchange)
            .await
            .with_context(|| format!("PostgreSQL did not finish {doing} within {STEP_TIMEOUT:?}"))?
    }

    /// Waits until the server ends by itself, and returns the reason.
    pub(super) async fn failure(&mut self, doing: &'static str) -> anyhow::Error {
        let mut rest = Vec::new();
        if let Err(error) = self.replies.read_to_end(&mut rest).await {
            return error.into();
        }
        let rest = String::from_utf8_lossy(&rest);
        let log = rest.strip_prefix("failed\n").unwrap_or(&rest).trim();
        anyhow!("PostgreSQL ended while {doing}; the end of its log:\n{log}")
    }

    /// Stops the server, and waits until its files are gone.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        drop((self.orders, self.replies));
        timeout(STEP_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("PostgreSQL did not stop within {STEP_TIMEOUT:?}"))??;
        Ok(())
    }
}
