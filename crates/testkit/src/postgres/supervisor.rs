//! The shell that keeps a cluster. It is held by a pipe: whatever ends this process closes the pipe, and that ends the
//! server and removes its files, so no cleaning up depends on this process being there to do it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{PostgresError, installation::Installation};

/// What the shell runs; its protocol is explained there.
const SCRIPT: &str = include_str!("supervisor.sh");

/// Ten times what a slow machine needs for any one step.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(60);

/// How much of a log an error quotes.
const LOG_TAIL_BYTES: usize = 4_000;

/// A running supervisor. Dropping it ends the server and removes its files, in the background.
pub(super) struct Supervisor {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts the shell, which waits for a password.
    ///
    /// # Errors
    /// When it can't be started.
    pub(super) fn spawn(
        installation: &Installation,
        parent: &Path,
        server_arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Self, PostgresError> {
        let mut child = installation
            .command("/bin/sh")
            .args(["-c", SCRIPT, "throwaway-postgres"])
            .arg(parent)
            .arg(&installation.bindir)
            .args(server_arguments)
            .current_dir(parent)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal must not take the database away from a worker that is still finishing.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(PostgresError::io("starting /bin/sh"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, replies) = pipes.expect("both were asked for");
        Ok(Self {
            child,
            orders,
            replies: BufReader::new(replies),
        })
    }

    /// Gives an order, and waits for the reply that begins with `expected`; returns the rest of that reply.
    ///
    /// # Errors
    /// When the cluster failed, with the end of its log, or the reply took too long.
    pub(super) async fn ask(
        &mut self,
        order: &str,
        expected: &str,
        doing: &'static str,
    ) -> Result<String, PostgresError> {
        let exchange = async {
            // A pipe that is closed at the other end means that there is a failure to read.
            if self
                .orders
                .write_all(format!("{order}\n").as_bytes())
                .await
                .is_err()
            {
                return Err(self.failure(doing).await);
            }
            let mut line = Vec::new();
            self.replies
                .read_until(b'\n', &mut line)
                .await
                .map_err(PostgresError::io(
                    "reading from the supervisor of PostgreSQL",
                ))?;
            let line = String::from_utf8_lossy(&line);
            match line.trim_end().strip_prefix(expected) {
                Some(rest) => Ok(rest.trim_start().to_owned()),
                None => Err(self.failure(doing).await),
            }
        };
        timeout(STEP_LIMIT, exchange).await.unwrap_or_else(|_| {
            Err(PostgresError::TimedOut {
                doing,
                after: STEP_LIMIT,
                log: String::new(),
            })
        })
    }

    /// Waits until the server ends without having been told to, and says why it did.
    pub(super) async fn failure(&mut self, doing: &'static str) -> PostgresError {
        let mut rest = Vec::new();
        if let Err(source) = self.replies.read_to_end(&mut rest).await {
            return PostgresError::Io { doing, source };
        }
        let said = String::from_utf8_lossy(&rest);
        let log = said
            .strip_prefix("failed\n")
            .unwrap_or(&said)
            .trim()
            .to_owned();
        PostgresError::Failed { doing, log }
    }

    /// Ends the server and waits until its files are gone.
    ///
    /// # Errors
    /// When that takes too long.
    pub(super) async fn end(self) -> Result<(), PostgresError> {
        let Self {
            mut child,
            orders,
            replies,
        } = self;
        drop((orders, replies));
        let doing = "stopping";
        match timeout(STEP_LIMIT, child.wait()).await {
            Ok(ended) => ended
                .map(drop)
                .map_err(PostgresError::io("waiting for PostgreSQL's end")),
            Err(_) => Err(PostgresError::TimedOut {
                doing,
                after: STEP_LIMIT,
                log: String::new(),
            }),
        }
    }
}

/// The last lines of the server's log.
pub(super) async fn log_tail(directory: &Path) -> String {
    match tokio::fs::read(directory.join("server.log")).await {
        Ok(log) => {
            let from = log.len().saturating_sub(LOG_TAIL_BYTES);
            String::from_utf8_lossy(&log[from..]).trim().to_owned()
        }
        Err(why) => format!("(the log can't be read: {why})"),
    }
}
