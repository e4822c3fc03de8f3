//! Counts of a message: statements, transactions, WAL bytes, instructions. They are about the same on a slow and on a
//! fast machine, so they show on any machine whether a change has made a message cost more.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::database_server::DatabaseServer;
use crate::drain::count;
use crate::environment::{Environment, EnvironmentConfig, Sender};
use crate::measurements::Measurements;
use crate::resource_usage::ResourceUsage;

/// A round fails if no call arrives for so long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// The server's log has a line with one of these for each executed statement.
const EXECUTED: [&str; 2] = ["LOG:  execute ", "LOG:  statement: "];

/// Two rounds at the same rate. Their difference is the cost of the additional messages, without that of a start.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) sender: Sender,
    /// Messages of each round.
    pub(crate) messages: [u64; 2],
    /// Calls a second. Any machine keeps up with so few, so each claim takes about the same number of rows.
    pub(crate) per_s: u32,
    /// Messages of each round under valgrind, which slows the worker down about fifty times.
    pub(crate) valgrind_messages: [u64; 2],
    pub(crate) valgrind_per_s: u32,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    statements: f64,
    used: ResourceUsage,
}

impl Counts {
    /// The rounds of `counts.json`. `--scale` does not change them, because the counts would differ.
    pub(crate) fn committed(sender: Sender) -> Self {
        Self {
            sender,
            messages: [500, 3_000],
            per_s: 500,
            valgrind_messages: [200, 1_000],
            valgrind_per_s: 100,
        }
    }

    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let few = self
            .round(server, self.messages[0], self.per_s, None)
            .await?;
        let many = self
            .round(server, self.messages[1], self.per_s, None)
            .await?;
        let messages = count(self.messages[1] - self.messages[0]);
        let used = many.used.since(&few.used);
        let mut measurements = Measurements::default();
        measurements.add(
            "statements_per_message",
            (many.statements - few.statements) / messages,
        );
        measurements.add("transactions_per_message", used.transactions / messages);
        measurements.add("wal_bytes_per_message", used.wal_bytes / messages);
        measurements.add("dead_tuples_per_message", used.dead_tuples / messages);
        if has_valgrind().await {
            let few = self.instructions(server, 0).await?;
            let many = self.instructions(server, 1).await?;
            let messages = count(self.valgrind_messages[1] - self.valgrind_messages[0]);
            measurements.add("instructions_per_message", (many - few) / messages);
        } else {
            eprintln!("counts: instructions are not counted, because valgrind is not installed");
        }
        Ok(measurements)
    }

    /// Instructions that the worker executes in the first (0) or the second round (1).
    async fn instructions(
        &self,
        server: &DatabaseServer,
        round_index: usize,
    ) -> anyhow::Result<f64> {
        let log = NamedTempFile::new()?;
        let messages = self.valgrind_messages[round_index];
        let (per_s, path) = (self.valgrind_per_s, Some(log.path()));
        self.round(server, messages, per_s, path).await?;
        let log = tokio::fs::read_to_string(log.path()).await?;
        instructions_in(&log)
            .with_context(|| format!("valgrind's log has no count of instructions: {log}"))
    }

    async fn round(
        &self,
        server: &DatabaseServer,
        messages: u64,
        per_s: u32,
        valgrind_log: Option<&Path>,
    ) -> anyhow::Result<Round> {
        let config = EnvironmentConfig {
            limit: Some(per_s),
            backlog: messages,
            valgrind_log: valgrind_log.map(Path::to_owned),
            ..EnvironmentConfig::of(self.sender.clone())
        };
        let environment = Environment::create(server, config).await?;
        if valgrind_log.is_none() {
            environment.log_statements().await?;
        }
        let statements = server.log_lines_with(&EXECUTED).await?;
        let senders = environment.start_senders().await?;
        environment
            .api
            .wait_for_calls(messages, PROGRESS_TIMEOUT)
            .await?;
        let used = environment.stop_senders(senders).await?.used;
        let statements = server.log_lines_with(&EXECUTED).await? - statements;
        environment.check_all_are_final().await?;
        environment.remove().await?;
        Ok(Round {
            statements: count(statements),
            used,
        })
    }
}

async fn has_valgrind() -> bool {
    let version = tokio::process::Command::new("valgrind")
        .arg("--version")
        .output()
        .await;
    version.is_ok_and(|version| version.status.success())
}

/// The count in a line like `==17== I   refs:        1,234,567`.
fn instructions_in(log: &str) -> Option<f64> {
    log.lines().rev().find_map(|line| {
        let number = match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "I", "refs:", number] => number.replace(',', ""),
            _ => return None,
        };
        number.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_from_the_log_of_valgrind() {
        // Releases differ in the spaces.
        for told in ["I   refs:      ", "I refs:        "] {
            let log = format!("==7== Command: worker run\n==7== \n==7== {told}1,234,567\n");
            assert_eq!(instructions_in(&log), Some(1_234_567.0));
        }
        assert_eq!(instructions_in("==7== killed\n"), None);
    }
}
