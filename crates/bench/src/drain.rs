//! Sends a backlog, and measures the rate and the costs. Most scenarios are a case of this.

use std::time::Duration;

use anyhow::ensure;
use testkit::SchedulerStalls;
use testkit::postgres::ThrowawayPostgres;

use crate::environment::{Environment, Workload};
use crate::measurements::{Measurements, count};
use crate::resource_usage::add_per_message;

/// The calls to measure.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(crate) workload: Workload,
    /// Calls before the measured ones.
    pub(crate) skipped: u64,
    pub(crate) measured: u64,
    /// Another session holds a snapshot during the whole run.
    pub(crate) holds_snapshot: bool,
}

impl Drain {
    /// Measures the whole backlog.
    pub(crate) fn of(workload: Workload) -> Self {
        Self {
            skipped: 0,
            measured: workload.backlog,
            workload,
            holds_snapshot: false,
        }
    }

    pub(crate) async fn measure(&self, server: &ThrowawayPostgres) -> anyhow::Result<Measurements> {
        let environment = Environment::create(server, self.workload.clone()).await?;
        let snapshot = environment.hold_snapshot_if(self.holds_snapshot).await?;
        // Watching takes processor time, so runs without a limit do without.
        let stalls = self.workload.limit.map(|_| SchedulerStalls::watch());
        let senders = environment.start_senders().await?;
        let last = self.skipped + self.measured;
        environment.api.wait_for_calls(last).await?;
        let longest_stall = stalls.map(|stalls| stalls.take_longest());
        let costs = environment.stop_senders(senders).await?;
        if last == self.workload.backlog {
            environment.check_all_are_sent().await?;
        }
        let rate = environment.api.rate_between(self.skipped + 1, last).await?;
        let summary = environment.api.summary().await?;
        drop(snapshot);

        let mut measurements = Measurements::from([
            ("messages_per_s".into(), rate),
            ("peak_memory_mib".into(), costs.peak_memory_mib),
        ]);
        if let (Some(limit), Some(stall)) = (self.workload.limit, longest_stall) {
            let apps = summary.apps.values();
            let arrived = apps.clone().map(|app| app.worst_sliding_second).max();
            let (started, arrived) = (
                fullest_second_of_starts(&environment).await?,
                arrived.unwrap_or(0),
            );
            check_pace(limit, started, arrived, stall)?;
            measurements.insert("fullest_second_calls".into(), count(arrived));
            let (slowest, fastest) = (
                apps.clone().map(|app| app.calls).min(),
                apps.map(|app| app.calls).max(),
            );
            if let Some((slowest, fastest)) = slowest.zip(fastest) {
                let percent = count(slowest) / count(fastest) * 100.0;
                measurements.insert("slowest_app_percent".into(), percent);
            }
        }
        add_per_message(&mut measurements, &costs.used, summary.calls);
        let cpu_us =
            (costs.used["sender_cpu_us"] + costs.used["postgres_cpu_us"]) / count(summary.calls);
        measurements.insert("cpu_us_per_message".into(), cpu_us);
        environment.finish().await?;
        Ok(measurements)
    }
}

/// The most calls of an app in any second, by the start times that the workers recorded.
async fn fullest_second_of_starts(environment: &Environment<'_>) -> anyhow::Result<u64> {
    let fullest: i64 = sqlx::query_scalar(
        "select coalesce(max(signaling.peak_rate(app, '-infinity', 'infinity')), 0)
         from (select distinct app from signaling.outbox) as apps",
    )
    .fetch_one(&environment.pool)
    .await?;
    Ok(u64::try_from(fullest)?)
}

fn check_pace(limit: u32, started: u64, arrived: u64, stall: Duration) -> anyhow::Result<()> {
    let limit = u64::from(limit);
    if arrived > limit && started <= limit && stall > SchedulerStalls::TOLERABLE {
        let stall_ms = stall.as_millis();
        return Err(SchedulerStalled {
            arrived,
            started,
            stall_ms,
        }
        .into());
    }
    ensure!(
        arrived.max(started) <= limit,
        "{arrived} calls arrived within a second, above a limit of {limit}; {started} started"
    );
    Ok(())
}

/// More calls arrived within a second than the limit allows, but no more started. A scheduler stall delayed the sender,
/// the API or the kernel between them, so the run must be repeated.
#[derive(Debug, thiserror::Error)]
#[error(
    "{arrived} calls arrived within a second, {started} started, and a processor was not available for {stall_ms} ms"
)]
pub(crate) struct SchedulerStalled {
    arrived: u64,
    started: u64,
    stall_ms: u128,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERABLE: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_millis(30);

    #[test]
    fn starts_above_the_limit_are_a_failure_despite_a_stall() {
        for stall in [TOLERABLE, LONG] {
            let error = check_pace(500, 501, 490, stall).expect_err("above the limit");
            assert!(!error.is::<SchedulerStalled>(), "{error}");
        }
    }

    #[test]
    fn arrivals_above_the_limit_are_a_failure_without_a_stall() {
        check_pace(500, 500, 500, LONG).expect("at the limit");
        let error = check_pace(500, 490, 501, TOLERABLE).expect_err("above the limit");
        assert!(!error.is::<SchedulerStalled>(), "{error}");
        let error = check_pace(500, 490, 501, LONG).expect_err("repeated");
        assert!(error.is::<SchedulerStalled>(), "{error}");
    }
}
