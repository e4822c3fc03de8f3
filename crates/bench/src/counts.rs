//! Statements, transactions, WAL bytes and instructions of a message. These counts are about the same on slow and fast
//! machines, so any machine shows whether a change made a message cost more.

use anyhow::Context as _;
use tempfile::NamedTempFile;
use testkit::postgres::ThrowawayPostgres;

use crate::environment::{Environment, Sender, Workload};
use crate::measurements::{Measurements, count};
use crate::resource_usage::{Usage, add_per_message, since};

/// The server's log has one of these for each executed statement.
const EXECUTED: [&str; 2] = ["LOG:  execute ", "LOG:  statement: "];

/// Messages of the two rounds. The difference of the rounds has no costs of a start. `--scale` does not change the
/// rounds, because the counts would differ from the targets.
const MESSAGES: [u64; 2] = [500, 3_000];
/// Any machine keeps up with so few calls a second, so each claim takes about the same number of rows.
const PER_S: u32 = 500;

/// Valgrind slows the worker down about fifty times.
const VALGRIND_MESSAGES: [u64; 2] = [200, 1_000];
const VALGRIND_PER_S: u32 = 100;

pub(crate) async fn measure(
    server: &ThrowawayPostgres,
    sender: &Sender,
) -> anyhow::Result<Measurements> {
    let mut measurements = Measurements::default();
    let mut rounds = vec![(MESSAGES, PER_S, false)];
    let mut valgrind = tokio::process::Command::new("valgrind");
    let valgrind = valgrind.arg("--version").output().await;
    if valgrind.is_ok_and(|valgrind| valgrind.status.success()) {
        rounds.push((VALGRIND_MESSAGES, VALGRIND_PER_S, true));
    } else {
        eprintln!("counts: instructions are not counted, because valgrind is not installed");
    }
    for ([few, many], per_s, has_valgrind) in rounds {
        let before = round(server, sender, few, per_s, has_valgrind).await?;
        let after = round(server, sender, many, per_s, has_valgrind).await?;
        add_per_message(&mut measurements, &since(&after, &before), many - few);
    }
    measurements.retain(|name, _| !name.contains("cpu"));
    Ok(measurements)
}

/// Counts instructions under valgrind, and everything else without it.
async fn round(
    server: &ThrowawayPostgres,
    sender: &Sender,
    messages: u64,
    per_s: u32,
    has_valgrind: bool,
) -> anyhow::Result<Usage> {
    let valgrind_log = NamedTempFile::new()?;
    let workload = Workload {
        limit: Some(per_s),
        measured: messages,
        valgrind_log: has_valgrind.then(|| valgrind_log.path().to_owned()),
        ..Workload::usual()
    };
    let environment = Environment::create(server, sender, &workload).await?;
    let log_all = "alter database bench set log_statement = 'all'";
    environment.execute(log_all).await?;
    let statements_before = logged_statements(server).await?;
    let senders = environment.start_senders().await?;
    environment.wait_for_calls(messages).await;
    let (mut used, _) = environment.stop_senders(senders).await?;
    let statements = logged_statements(server).await? - statements_before;
    used.insert("statements", count(statements));
    environment.finish(0).await?;
    if has_valgrind {
        let log = tokio::fs::read_to_string(valgrind_log.path()).await?;
        let instructions = instructions_in(&log)
            .with_context(|| format!("valgrind's log has no count of instructions: {log}"))?;
        used = Usage::from([("instructions", instructions)]);
    }
    Ok(used)
}

async fn logged_statements(server: &ThrowawayPostgres) -> anyhow::Result<u64> {
    let log = tokio::fs::read(server.directory.join("server.log")).await?;
    let log = String::from_utf8_lossy(&log);
    let statements = log
        .lines()
        .filter(|line| EXECUTED.iter().any(|executed| line.contains(executed)));
    Ok(statements.count() as u64)
}

/// The count in a line like `==17== I   refs:        1,234,567`.
fn instructions_in(log: &str) -> Option<f64> {
    log.lines().rev().find_map(|line| {
        let (_, number) = line.split_once("refs:")?;
        let is_count = line.split_whitespace().nth(1) == Some("I");
        is_count.then(|| number.trim().replace(',', "").parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_from_the_log_of_valgrind() {
        // Releases of valgrind differ in the spaces.
        for name in ["I   refs:      ", "I refs:        "] {
            let log = format!("==7== Command: worker run\n==7== \n==7== {name}1,234,567\n");
            assert_eq!(instructions_in(&log), Some(1_234_567.0));
        }
        assert_eq!(instructions_in("==7== killed\n"), None);
    }
}
