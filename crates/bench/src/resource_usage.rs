//! What a measurement costs: time of processors, the log of the database, transactions, dead rows, memory.

use sqlx::PgPool;

/// What was used up to a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// Processor time of the sending processes, in seconds; none where the system does not tell.
    pub(super) sender_cpu_s: Option<f64>,
    /// That of the database server with all its processes.
    pub(super) postgres_cpu_s: Option<f64>,
    /// Bytes of write-ahead log.
    pub(super) wal_bytes: f64,
    /// Transactions of the database, begun and ended.
    pub(super) transactions: f64,
    /// Versions of rows that updates and deletes left behind.
    pub(super) dead_tuples: f64,
}

impl Reading {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Self {
            sender_cpu_s: less(self.sender_cpu_s, earlier.sender_cpu_s),
            postgres_cpu_s: less(self.postgres_cpu_s, earlier.postgres_cpu_s),
            wal_bytes: self.wal_bytes - earlier.wal_bytes,
            transactions: self.transactions - earlier.transactions,
            dead_tuples: self.dead_tuples - earlier.dead_tuples,
        }
    }

    /// Reads what the database counts.
    pub(super) async fn read_database(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
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

/// Processor time of a process, in seconds.
#[cfg(target_os = "linux")]
pub(super) fn cpu_s(pid: u32) -> Option<f64> {
    let stat = process(pid)?.stat().ok()?;
    Some(ticks_s(stat.utime + stat.stime))
}

/// The same, with the processes that it has started, and those of them that have ended.
#[cfg(target_os = "linux")]
pub(super) fn cpu_with_children_s(pid: u32) -> Option<f64> {
    let mut own = process(pid)?.stat().ok()?;
    // One that ends while the others are looked at is counted among the ended ones, or not at all: looked at again.
    for _ in 0..MOST_LOOKS {
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

/// How often processes are looked at that come and go meanwhile.
#[cfg(target_os = "linux")]
const MOST_LOOKS: u32 = 100;

/// The most memory that a process has had, in MiB.
#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn peak_memory_mib(pid: u32) -> Option<f64> {
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
pub(super) fn cpu_s(_: u32) -> Option<f64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn cpu_with_children_s(_: u32) -> Option<f64> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn peak_memory_mib(_: u32) -> Option<f64> {
    None
}
