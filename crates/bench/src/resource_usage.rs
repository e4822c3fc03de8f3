//! Resource usage of processes and of the database: processor time, memory, WAL, transactions, dead rows.

use sqlx::PgPool;

/// Totals up to a moment, or the difference of two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResourceUsage {
    /// Processor time of the sending processes. None where the system does not provide it.
    pub(crate) sender_cpu_s: Option<f64>,
    /// Processor time of the database server with all its processes.
    pub(crate) postgres_cpu_s: Option<f64>,
    /// Bytes of write-ahead log.
    pub(crate) wal_bytes: f64,
    /// Transactions that have ended, by a commit or a rollback.
    pub(crate) transactions: f64,
    /// Row versions that updates and deletes have left behind.
    pub(crate) dead_tuples: f64,
}

impl ResourceUsage {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Self {
            sender_cpu_s: less(self.sender_cpu_s, earlier.sender_cpu_s),
            postgres_cpu_s: less(self.postgres_cpu_s, earlier.postgres_cpu_s),
            wal_bytes: self.wal_bytes - earlier.wal_bytes,
            transactions: self.transactions - earlier.transactions,
            dead_tuples: self.dead_tuples - earlier.dead_tuples,
        }
    }

    /// Reads the counters of the database.
    pub(crate) async fn read_database(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        (self.wal_bytes, self.transactions, self.dead_tuples) = sqlx::query_as(
            "select (pg_current_wal_insert_lsn() - '0/0')::float8,
                    (select xact_commit + xact_rollback from pg_stat_database
                     where datname = current_database())::float8,
                    (select coalesce(sum(n_tup_upd + n_tup_del), 0) from pg_stat_user_tables)::float8",
        )
        .fetch_one(pool)
        .await?;
        Ok(())
    }
}

/// Processor time of a process.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_s(pid: u32) -> Option<f64> {
    let stat = process(pid)?.stat().ok()?;
    Some(ticks_s(stat.utime + stat.stime))
}

/// Processor time of a process with its children, including those that have ended.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_with_children_s(pid: u32) -> Option<f64> {
    let mut own = process(pid)?.stat().ok()?;
    // A child that ends between the two reads would be counted twice or not at all, so both are read again.
    for _ in 0..MAX_READS {
        let running: u64 = procfs::process::all_processes()
            .ok()?
            .filter_map(|process| process.ok()?.stat().ok())
            .filter(|stat| stat.ppid == own.pid)
            .map(|stat| stat.utime + stat.stime)
            .sum();
        let before = own;
        own = process(pid)?.stat().ok()?;
        let ended = |stat: &procfs::process::Stat| stat.cutime + stat.cstime;
        if ended(&own) == ended(&before) {
            let ended = u64::try_from(ended(&own)).unwrap_or(0);
            return Some(ticks_s(own.utime + own.stime + ended + running));
        }
    }
    None
}

/// Reads before the processor time is given up because children keep ending.
#[cfg(target_os = "linux")]
const MAX_READS: u32 = 100;

/// The highest resident memory of a process so far.
#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn peak_memory_mib(pid: u32) -> Option<f64> {
    Some(process(pid)?.status().ok()?.vmhwm? as f64 / 1024.0)
}

#[cfg(target_os = "linux")]
fn process(pid: u32) -> Option<procfs::process::Process> {
    procfs::process::Process::new(i32::try_from(pid).ok()?).ok()
}

#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ticks_s(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_s(_: u32) -> Option<f64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_with_children_s(_: u32) -> Option<f64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn peak_memory_mib(_: u32) -> Option<f64> {
    None
}
