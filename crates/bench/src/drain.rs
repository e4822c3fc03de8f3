//! Sends a backlog, and measures the rate and the costs. Most scenarios are a case of this.

use std::time::Duration;

use anyhow::{bail, ensure};
use harness::SchedulerStalls;
use testkit::postgres::ThrowawayPostgres;

use crate::environment::{Environment, Sender, Workload};
use crate::measurements::{Measurements, count};
use crate::resource_usage::add_per_message;

/// The benchmark repeats a run that a scheduler stall disturbs, up to this number of runs.
const MAX_TRIES: u32 = 4;

pub(crate) async fn measure(
    server: &ThrowawayPostgres,
    sender: &Sender,
    workload: &Workload,
) -> anyhow::Result<Measurements> {
    for _ in 0..MAX_TRIES {
        if let Some(measurements) = try_measure(server, sender, workload).await? {
            return Ok(measurements);
        }
        eprintln!("a scheduler stall disturbed this run: measuring again");
    }
    bail!("scheduler stalls disturbed each run: measure on a machine without other load")
}

/// Returns nothing if a scheduler stall disturbed the run.
async fn try_measure(
    server: &ThrowawayPostgres,
    sender: &Sender,
    workload: &Workload,
) -> anyhow::Result<Option<Measurements>> {
    let environment = Environment::create(server, sender, workload).await?;
    // Watching takes processor time, and runs without a limit do not need it.
    let stalls = workload.limit.map(|_| SchedulerStalls::watch());
    let senders = environment.start_senders().await?;
    let last = workload.skipped + workload.measured;
    environment.wait_for_calls(last).await;
    let stall = stalls.map(|stalls| stalls.take_longest());
    let (mut used, peak_memory_mib) = environment.stop_senders(senders).await?;
    let rate = environment.rate_between(workload.skipped + 1, last)?;
    let summary = environment.api.ledger().summary();

    let mut measurements = Measurements::from([
        ("messages_per_s".into(), rate),
        ("peak_memory_mib".into(), peak_memory_mib),
    ]);
    if let (Some(limit), Some(stall)) = (workload.limit, stall) {
        let apps = || summary.apps.values();
        let arrived = apps()
            .map(|app| app.worst_sliding_second)
            .max()
            .unwrap_or(0);
        let started = fullest_second_of_starts(&environment).await?;
        if !keeps_limit(limit.into(), started, arrived, stall)? {
            return Ok(None);
        }
        measurements.insert("fullest_second_calls".into(), count(arrived));
        let calls = || apps().map(|app| app.calls);
        if let (Some(fewest), Some(most)) = (calls().min(), calls().max()) {
            let percent = count(fewest) / count(most) * 100.0;
            measurements.insert("slowest_app_percent".into(), percent);
        }
    }
    used.insert("cpu_us", used["sender_cpu_us"] + used["postgres_cpu_us"]);
    add_per_message(&mut measurements, &used, summary.calls);
    environment.finish(workload.left_over).await?;
    Ok(Some(measurements))
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

/// Returns false if more calls arrived within a second than the limit allows, but no more started: a scheduler stall
/// delayed the sender, the API or the kernel between them.
fn keeps_limit(limit: u64, started: u64, arrived: u64, stall: Duration) -> anyhow::Result<bool> {
    if arrived > limit && started <= limit && stall > SchedulerStalls::TOLERABLE {
        return Ok(false);
    }
    ensure!(
        arrived.max(started) <= limit,
        "{arrived} calls arrived within a second, above a limit of {limit}; {started} started"
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arrivals_above_the_limit_may_be_the_fault_of_a_stall() {
        let (short, long) = (Duration::from_millis(2), Duration::from_millis(30));
        let keeps = |started, arrived, stall| keeps_limit(500, started, arrived, stall).ok();
        assert_eq!(keeps(500, 500, long), Some(true));
        assert_eq!(keeps(490, 501, long), Some(false));
        for (started, arrived, stall) in [(501, 490, short), (501, 490, long), (490, 501, short)] {
            assert_eq!(keeps(started, arrived, stall), None, "{started} {arrived}");
        }
    }
}
