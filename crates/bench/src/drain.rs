//! Sending what waits: the measurement that most questions come down to.

use std::time::Duration;

use anyhow::ensure;
use sqlx::{Executor as _, PgConnection, Postgres, Transaction};

use super::figures::Figures;
use super::stage::{Costs, Machine, Setting, Stage};
use super::{SchedulerStalls, StoodStill};

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which of the calls are looked at, and what else goes on.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    pub(super) setting: Setting,
    /// Calls before those whose rate is measured.
    pub(super) skipped: u64,
    /// Calls whose rate is measured.
    pub(super) measured: u64,
    /// Whether somebody holds a snapshot from the beginning to the end.
    pub(super) held_snapshot: bool,
}

impl Drain {
    /// Sends all that waits, and measures all of it.
    pub(super) fn of(setting: Setting) -> Self {
        Self {
            skipped: 0,
            measured: setting.waiting,
            setting,
            held_snapshot: false,
        }
    }

    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        let stage = Stage::set(machine, self.setting.clone()).await?;
        let snapshot = if self.held_snapshot {
            Some(hold_snapshot(&stage).await?)
        } else {
            None
        };
        // Watching takes some of what is watched.
        let stalls = self.setting.limit.map(|_| SchedulerStalls::watch());
        let senders = stage.start().await?;
        let last = self.skipped + self.measured;
        stage.api.until_calls(last, PATIENCE).await?;
        let longest_stall = stalls.map(|stalls| stalls.take_longest());
        let costs = stage.stop(senders).await?;
        if last == self.setting.waiting {
            stage.check_all_are_final().await?;
        }
        let rate = stage.api.rate_between(self.skipped + 1, last).await?;
        let summary = stage.api.summary().await?;
        drop(snapshot);

        let mut figures = Figures::default();
        figures.add("messages_per_s", rate);
        if let Some(limit) = self.setting.limit {
            let apps = &summary.apps;
            let arrived = apps.values().map(|app| app.worst_sliding_second).max();
            let arrived = arrived.unwrap_or(0);
            let started = stage.fullest_second_by_the_workers().await?;
            judge_pace(limit, started, arrived, longest_stall.unwrap_or_default())?;
            figures.add("fullest_second_calls", count(arrived));
        }
        if self.setting.apps > 1 {
            let calls = || summary.apps.values().map(|app| count(app.calls));
            figures.add_some("fewest_of_an_app", calls().reduce(f64::min));
            figures.add_some("most_of_an_app", calls().reduce(f64::max));
        }
        add_costs(&mut figures, &costs, summary.calls);
        stage.clear().await?;
        Ok(figures)
    }
}

/// Whether no second had more calls of an app than its limit: as the workers took note of them when they `started`, and
/// as they `arrived`, unless the machine itself has kept them.
fn judge_pace(
    limit: u32,
    started: u64,
    arrived: u64,
    longest_stall: Duration,
) -> anyhow::Result<()> {
    let limit = u64::from(limit);
    ensure!(
        started <= limit,
        "{started} calls were made within a second, with a limit of {limit}"
    );
    if arrived > limit && longest_stall > SchedulerStalls::TOLERABLE {
        return Err(StoodStill {
            arrived,
            started,
            stall_ms: longest_stall.as_millis(),
        }
        .into());
    }
    ensure!(
        arrived <= limit,
        "{arrived} calls arrived within a second, with a limit of {limit}; {started} were made"
    );
    Ok(())
}

pub(super) fn add_costs(figures: &mut Figures, costs: &Costs, messages: u64) {
    let Costs {
        used,
        peak_memory_mib,
    } = costs;
    let messages = count(messages);
    let per_thousand = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3 / messages);
    figures.add_some("sender_cpu_s_per_1000", per_thousand(used.sender_cpu_s));
    figures.add_some("postgres_cpu_s_per_1000", per_thousand(used.postgres_cpu_s));
    figures.add("wal_bytes_per_message", used.wal_bytes / messages);
    figures.add("transactions_per_message", used.transactions / messages);
    figures.add("dead_tuples_per_message", used.dead_tuples / messages);
    figures.add_some("peak_memory_mib", *peak_memory_mib);
}

/// A report or a backup that has begun: as long as it lasts, no version of a row that it may see is cleaned up.
async fn hold_snapshot(stage: &Stage<'_>) -> anyhow::Result<Transaction<'static, Postgres>> {
    let mut transaction = stage.pool.begin().await?;
    let connection: &mut PgConnection = &mut transaction;
    connection
        .execute("set transaction isolation level repeatable read")
        .await?;
    connection.execute("select count(*) from pg_class").await?;
    Ok(transaction)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Duration = Duration::from_millis(2);
    const DISTURBED: Duration = Duration::from_millis(30);

    #[test]
    fn calls_that_were_made_above_the_limit_are_a_failure_on_any_machine() {
        for stall in [CALM, DISTURBED] {
            let error = judge_pace(500, 501, 490, stall).expect_err("above the limit");
            assert!(!error.is::<StoodStill>(), "{error}");
        }
    }

    #[test]
    fn calls_that_arrive_above_the_limit_are_a_failure_unless_the_machine_stood_still() {
        judge_pace(500, 500, 500, DISTURBED).expect("at the limit");
        let error = judge_pace(500, 490, 501, CALM).expect_err("above the limit");
        assert!(!error.is::<StoodStill>(), "{error}");
        let error = judge_pace(500, 490, 501, DISTURBED).expect_err("says nothing");
        assert!(error.is::<StoodStill>(), "{error}");
    }
}
