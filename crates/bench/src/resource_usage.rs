//! Resource usage of processes and of the database.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use sqlx::PgPool;

use crate::measurements::{Measurements, count};

/// Totals up to a moment, or the difference of two moments.
pub(crate) type Usage = BTreeMap<&'static str, f64>;

/// The length of a tick in `/proc`, on every architecture of Linux.
const TICK_US: f64 = 10_000.0;

pub(crate) fn since(after: &Usage, before: &Usage) -> Usage {
    let difference = |(name, value): (&&'static str, &f64)| (*name, value - before[name]);
    after.iter().map(difference).collect()
}

pub(crate) fn add_per_message(measurements: &mut Measurements, usage: &Usage, messages: u64) {
    for (name, value) in usage {
        measurements.insert(format!("{name}_per_message"), value / count(messages));
    }
}

/// Postgres's own counters: bytes of WAL, and ended transactions.
pub(crate) async fn database_usage(pool: &PgPool) -> Result<Usage, sqlx::Error> {
    let (wal_bytes, transactions) = sqlx::query_as(
        "select (pg_current_wal_insert_lsn() - '0/0')::float8,
                (select xact_commit + xact_rollback from pg_stat_database where datname = current_database())::float8",
    )
    .fetch_one(pool)
    .await?;
    Ok(Usage::from([
        ("wal_bytes", wal_bytes),
        ("transactions", transactions),
    ]))
}

/// Processor time of a process and its children, including ended ones.
pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let (_, ticks) = parent_and_ticks(pid)?;
    let running: u64 = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process| parent_and_ticks(process).ok())
        .filter_map(|(parent, ticks)| (parent == u64::from(pid)).then_some(ticks))
        .sum();
    Ok(count(ticks + running) * TICK_US)
}

/// The highest resident memory of a process so far.
pub(crate) fn peak_memory_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let (_, peak) = status.split_once("VmHWM:").context("/proc has no VmHWM")?;
    let kib = peak.split_whitespace().next().unwrap_or_default();
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// The parent of a process, and the ticks of the process and its ended children.
fn parent_and_ticks(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path)
        .with_context(|| format!("{path} can't be read: bench runs on Linux only"))?;
    // The name before the other fields may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |number: usize| -> anyhow::Result<u64> {
        let text = fields.get(number - 3).context("too few fields in /proc")?;
        Ok(text.parse()?)
    };
    Ok((field(4)?, field(14)? + field(15)? + field(16)? + field(17)?))
}
