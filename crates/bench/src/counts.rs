//! What a message takes in counts: these are about the same on a slow machine and on a fast one, and so show what a
//! change has made worse wherever they are taken.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::NamedTempFile;

use super::drain::count;
use super::figures::Figures;
use super::meter::Reading;
use super::stage::{Machine, Sender, Setting, Stage};

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What every line of the server's log has that tells of a statement, as it is executed.
const EXECUTED: [&str; 2] = ["LOG:  execute ", "LOG:  statement: "];

/// Two rounds at the same rate: what one takes more than the other is due to the messages that it has more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Of each round.
    pub(super) messages: [u64; 2],
    /// Calls a second: so few that any machine keeps up, and each claim takes about as many rows.
    pub(super) per_s: u32,
    /// The same for the rounds in which instructions are counted, which takes some fifty times as long.
    pub(super) instructed: [u64; 2],
    pub(super) instructed_per_s: u32,
}

/// What a round took.
#[derive(Debug, Clone, Copy)]
struct Round {
    statements: f64,
    used: Reading,
}

impl Counts {
    /// Those of the committed figures, and so the same on any scale.
    pub(super) const COMMITTED: Self = Self {
        messages: [500, 3_000],
        per_s: 500,
        instructed: [200, 1_000],
        instructed_per_s: 100,
    };

    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        let few = round(machine, self.messages[0], self.per_s, None).await?;
        let many = round(machine, self.messages[1], self.per_s, None).await?;
        let messages = count(self.messages[1] - self.messages[0]);
        let used = many.used.since(&few.used);
        let mut figures = Figures::default();
        figures.add(
            "statements_per_message",
            (many.statements - few.statements) / messages,
        );
        figures.add("transactions_per_message", used.transactions / messages);
        figures.add("wal_bytes_per_message", used.wal_bytes / messages);
        figures.add("dead_tuples_per_message", used.dead_tuples / messages);
        if valgrind_is_there().await {
            let few = self.instructions(machine, 0).await?;
            let many = self.instructions(machine, 1).await?;
            let messages = count(self.instructed[1] - self.instructed[0]);
            figures.add("instructions_per_message", (many - few) / messages);
        } else {
            eprintln!("no instructions are counted: there is no valgrind");
        }
        Ok(figures)
    }

    /// Instructions of the worker, in the first or the second round.
    async fn instructions(&self, machine: &Machine, number: usize) -> anyhow::Result<f64> {
        let log = NamedTempFile::new()?;
        let messages = self.instructed[number];
        round(machine, messages, self.instructed_per_s, Some(log.path())).await?;
        let log = tokio::fs::read_to_string(log.path()).await?;
        instructions_told(&log).with_context(|| format!("valgrind does not tell how many: {log}"))
    }
}

async fn round(
    machine: &Machine,
    messages: u64,
    per_s: u32,
    valgrind_log: Option<&Path>,
) -> anyhow::Result<Round> {
    let setting = Setting {
        limit: Some(per_s),
        waiting: messages,
        valgrind_log: valgrind_log.map(Path::to_owned),
        ..Setting::of(Sender::Worker)
    };
    let stage = Stage::set(machine, setting).await?;
    if valgrind_log.is_none() {
        stage.log_statements().await?;
    }
    let statements = machine.log_lines_with(&EXECUTED).await?;
    let senders = stage.start().await?;
    stage.api.until_calls(messages, PATIENCE).await?;
    let used = stage.stop(senders).await?.used;
    let statements = machine.log_lines_with(&EXECUTED).await? - statements;
    stage.check_all_are_final().await?;
    stage.clear().await?;
    Ok(Round {
        statements: count(statements),
        used,
    })
}

async fn valgrind_is_there() -> bool {
    let version = tokio::process::Command::new("valgrind")
        .arg("--version")
        .output()
        .await;
    version.is_ok_and(|version| version.status.success())
}

/// From a line like `==17== I   refs:        1,234,567`.
fn instructions_told(log: &str) -> Option<f64> {
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
    fn instructions_are_read_from_what_valgrind_says() {
        // Releases differ in the spaces.
        for told in ["I   refs:      ", "I refs:        "] {
            let log = format!("==7== Command: worker run\n==7== \n==7== {told}1,234,567\n");
            assert_eq!(instructions_told(&log), Some(1_234_567.0));
        }
        assert_eq!(instructions_told("==7== killed\n"), None);
    }
}
