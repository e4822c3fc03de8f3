//! Sends a backlog, and measures the rate and the costs. Most scenarios are a case of this.

use std::time::Duration;

use anyhow::ensure;
use testkit::SchedulerStalls;

use crate::database_server::DatabaseServer;
use crate::environment::{Costs, Environment, EnvironmentConfig};
use crate::measurements::Measurements;
use crate::resource_usage::ResourceUsage;

/// The measurement fails if no call arrives for so long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Which of the calls are measured, and under which conditions.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(crate) config: EnvironmentConfig,
    /// Calls before the measured ones.
    pub(crate) skipped: u64,
    /// The rate is that of so many calls.
    pub(crate) measured: u64,
    /// Another session holds a snapshot during the whole run.
    pub(crate) held_snapshot: bool,
}

impl Drain {
    /// Sends and measures the whole backlog.
    pub(crate) fn of(config: EnvironmentConfig) -> Self {
        Self {
            skipped: 0,
            measured: config.backlog,
            config,
            held_snapshot: false,
        }
    }

    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let environment = Environment::create(server, self.config.clone()).await?;
        let snapshot = if self.held_snapshot {
            Some(environment.hold_snapshot().await?)
        } else {
            None
        };
        // Watching takes processor time, so it is left out where there is no pace to check.
        let stalls = self.config.limit.map(|_| SchedulerStalls::watch());
        let senders = environment.start_senders().await?;
        let last = self.skipped + self.measured;
        environment
            .api
            .wait_for_calls(last, PROGRESS_TIMEOUT)
            .await?;
        let longest_stall = stalls.map(|stalls| stalls.take_longest());
        let costs = environment.stop_senders(senders).await?;
        if last == self.config.backlog {
            environment.check_all_are_final().await?;
        }
        let rate = environment.api.rate_between(self.skipped + 1, last).await?;
        let summary = environment.api.summary().await?;
        drop(snapshot);

        let mut measurements = Measurements::default();
        measurements.add("messages_per_s", rate);
        if let Some(limit) = self.config.limit {
            let apps = &summary.apps;
            let arrived = apps.values().map(|app| app.worst_sliding_second).max();
            let arrived = arrived.unwrap_or(0);
            let started = environment.fullest_second_of_starts().await?;
            check_pace(limit, started, arrived, longest_stall.unwrap_or_default())?;
            measurements.add("fullest_second_calls", count(arrived));
        }
        if self.config.apps > 1 {
            let calls = || summary.apps.values().map(|app| count(app.calls));
            measurements.add_some("fewest_of_an_app", calls().reduce(f64::min));
            measurements.add_some("most_of_an_app", calls().reduce(f64::max));
        }
        add_cpu(&mut measurements, &costs.used, summary.calls);
        add_database_costs(&mut measurements, &costs, summary.calls);
        environment.remove().await?;
        Ok(measurements)
    }
}

/// Checks that no second had more calls of an app than its limit, both by the starts that the workers recorded and by
/// the arrivals at the API.
///
/// # Errors
/// [`SchedulerStalled`] if only the arrivals are too many and a scheduler stall explains them.
fn check_pace(
    limit: u32,
    started: u64,
    arrived: u64,
    longest_stall: Duration,
) -> anyhow::Result<()> {
    let limit = u64::from(limit);
    ensure!(
        started <= limit,
        "{started} calls started within a second, with a limit of {limit}"
    );
    if arrived > limit && longest_stall > SchedulerStalls::TOLERABLE {
        return Err(SchedulerStalled {
            arrived,
            started,
            stall_ms: longest_stall.as_millis(),
        }
        .into());
    }
    ensure!(
        arrived <= limit,
        "{arrived} calls arrived within a second, with a limit of {limit}; {started} started"
    );
    Ok(())
}

/// More calls arrived within a second than the limit allows, but no more started. A scheduler stall delayed the sender,
/// the API or the kernel between them, so the run says nothing about the pace.
#[derive(Debug, thiserror::Error)]
#[error(
    "{arrived} calls arrived within a second, {started} started, and a processor was not available for {stall_ms} ms"
)]
pub(crate) struct SchedulerStalled {
    arrived: u64,
    started: u64,
    stall_ms: u128,
}

pub(crate) fn add_cpu(measurements: &mut Measurements, used: &ResourceUsage, messages: u64) {
    let per_thousand =
        |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3 / count(messages));
    measurements.add_some("sender_cpu_s_per_1000", per_thousand(used.sender_cpu_s));
    measurements.add_some("postgres_cpu_s_per_1000", per_thousand(used.postgres_cpu_s));
}

/// Adds the costs of sending other than processor time.
pub(crate) fn add_database_costs(measurements: &mut Measurements, costs: &Costs, messages: u64) {
    let Costs {
        used,
        peak_memory_mib,
    } = costs;
    let messages = count(messages);
    measurements.add("wal_bytes_per_message", used.wal_bytes / messages);
    measurements.add("transactions_per_message", used.transactions / messages);
    measurements.add("dead_tuples_per_message", used.dead_tuples / messages);
    measurements.add_some("peak_memory_mib", *peak_memory_mib);
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
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
