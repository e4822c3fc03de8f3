//! Resource usage of processes and of the database.

use std::collections::BTreeMap;

use sqlx::PgPool;

use crate::measurements::{Measurements, count};

/// Totals up to a moment, or the difference of two moments.
pub(crate) type Usage = BTreeMap<&'static str, f64>;

pub(crate) fn since(after: &Usage, before: &Usage) -> Usage {
    let difference = |(name, value): (&&'static str, &f64)| (*name, value - before[name]);
    after.iter().map(difference).collect()
}

pub(crate) fn add_per_message(measurements: &mut Measurements, usage: &Usage, messages: u64) {
    let per_message = usage
        .iter()
        .map(|(name, value)| (format!("{name}_per_message"), value / count(messages)));
    measurements.extend(per_message);
}

/// Postgres's own counters: bytes of WAL, ended transactions, and row versions left behind by updates and deletes.
pub(crate) async fn database_usage(pool: &PgPool) -> Result<Usage, sqlx::Error> {
    let (wal_bytes, transactions, dead_tuples) = sqlx::query_as(
        "select (pg_current_wal_insert_lsn() - '0/0')::float8,
                (select xact_commit + xact_rollback from pg_stat_database where datname = current_database())::float8,
                (select coalesce(sum(n_tup_upd + n_tup_del), 0) from pg_stat_user_tables)::float8",
    )
    .fetch_one(pool)
    .await?;
    Ok(Usage::from([
        ("wal_bytes", wal_bytes),
        ("transactions", transactions),
        ("dead_tuples", dead_tuples),
    ]))
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{cpu_us, cpu_with_children_us, peak_memory_mib};

#[cfg(target_os = "linux")]
mod linux {
    use anyhow::Context as _;
    use procfs::process::{Process, Stat, all_processes};

    use crate::measurements::count;

    const MAX_READS: u32 = 100;

    /// Processor time of a process.
    pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<f64> {
        let stat = process(pid)?.stat()?;
        Ok(ticks_us(stat.utime + stat.stime))
    }

    /// Processor time of a process and its children, including ended ones.
    pub(crate) fn cpu_with_children_us(pid: u32) -> anyhow::Result<f64> {
        let ended = |stat: &Stat| u64::try_from(stat.cutime + stat.cstime);
        let mut own = process(pid)?.stat()?;
        // A child that ends between the reads would count twice or not at all, so both are repeated then.
        for _ in 0..MAX_READS {
            let running: u64 = all_processes()?
                .filter_map(|process| process.ok()?.stat().ok())
                .filter(|stat| stat.ppid == own.pid)
                .map(|stat| stat.utime + stat.stime)
                .sum();
            let before = ended(&own)?;
            own = process(pid)?.stat()?;
            if ended(&own)? == before {
                return Ok(ticks_us(own.utime + own.stime + before + running));
            }
        }
        anyhow::bail!("processes of Postgres end too often to read their processor time")
    }

    /// The highest resident memory of a process so far.
    pub(crate) fn peak_memory_mib(pid: u32) -> anyhow::Result<f64> {
        let kib = process(pid)?.status()?.vmhwm;
        Ok(count(kib.context("/proc has no VmHWM")?) / 1024.0)
    }

    fn process(pid: u32) -> anyhow::Result<Process> {
        Ok(Process::new(i32::try_from(pid)?)?)
    }

    fn ticks_us(ticks: u64) -> f64 {
        count(ticks) * 1e6 / count(procfs::ticks_per_second())
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{
    unsupported as cpu_us, unsupported as cpu_with_children_us, unsupported as peak_memory_mib,
};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    pub(crate) fn unsupported(_pid: u32) -> anyhow::Result<f64> {
        anyhow::bail!("bench reads processor time and memory in /proc, so it runs on Linux only")
    }
}
