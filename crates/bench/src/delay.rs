//! The delay of a message under a low load, and its processor time. A user's delay begins just before the producer
//! sends its insert, includes the commit, and ends when the call arrives at the API.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::AssertSqlSafe;

use crate::environment::Environment;
use crate::measurements::{Measurements, median, percentile_99};
use crate::resource_usage::{add_per_message, since};

/// The time from the sender's start to the first insert.
const WARM_UP: Duration = Duration::from_secs(2);
/// The first calls open their connections, so they are not measured.
const WARM_UP_MESSAGES: u64 = 100;
/// A low load: 100 inserts a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Under a held snapshot, row versions pile up. The first tenth of the messages is compared with the last one.
pub(crate) async fn measure(environment: Environment<'_>) -> anyhow::Result<Measurements> {
    let workload = environment.workload;
    let senders = environment.start_senders().await?;
    tokio::time::sleep(WARM_UP).await;
    let mut begun = insert(&environment, 0..WARM_UP_MESSAGES).await?;
    let before = environment.cpu(&senders.processes)?;
    let all = WARM_UP_MESSAGES + workload.inserted;
    begun.extend(insert(&environment, WARM_UP_MESSAGES..all).await?);
    environment.wait_for_calls(all).await;
    let cpu = since(&environment.cpu(&senders.processes)?, &before);
    let (used, _) = environment.stop_senders(senders).await?;
    let mut delays_ms = vec![None; begun.len()];
    for call in environment.api.ledger().calls() {
        let number: Option<usize> = call.payload.and_then(|payload| payload.parse().ok());
        let number = number.context("a call has an unknown payload")?;
        let called = environment.api.ledger().started + Duration::from_micros(call.at_us);
        let delay = called.saturating_duration_since(begun[number]);
        delays_ms[number] = Some(delay.as_secs_f64() * 1e3);
    }
    environment.finish(0).await?;
    let measured = delays_ms.split_off(usize::try_from(WARM_UP_MESSAGES)?);
    let delays_ms: Option<Vec<f64>> = measured.into_iter().collect();
    let delays_ms = delays_ms.context("the API never received one of the messages")?;

    let mut measurements = Measurements::default();
    if workload.holds_snapshot {
        let tenth = delays_ms.len() / 10;
        let median = |delays_ms: &[f64]| median(delays_ms.to_vec()).context("too few messages");
        let first = median(&delays_ms[..tenth])?;
        let last = median(&delays_ms[delays_ms.len() - tenth..])?;
        measurements.insert("delay_of_first_tenth_p50_ms".into(), first);
        measurements.insert("delay_of_last_tenth_p50_ms".into(), last);
        measurements.insert("last_of_first_percent".into(), last / first * 100.0);
    }
    add_per_message(&mut measurements, &used, all);
    // Only the processor time of the measured messages: a start takes much more.
    add_per_message(&mut measurements, &cpu, workload.inserted);
    let p50 = median(delays_ms.clone()).context("no messages")?;
    measurements.insert("delay_p50_ms".into(), p50);
    measurements.insert("delay_p99_ms".into(), percentile_99(delays_ms));
    Ok(measurements)
}

/// Inserts messages one by one, each in its own transaction. Returns the times just before the inserts.
async fn insert(
    environment: &Environment<'_>,
    numbers: std::ops::Range<u64>,
) -> anyhow::Result<Vec<Instant>> {
    let table = environment.sender.table();
    let insert =
        format!("insert into {table} (sender, destination, payload) values ('bench', 'bob', $1)");
    let mut connection = environment.pool.acquire().await?;
    let mut begun = Vec::new();
    let mut next = Instant::now();
    for number in numbers {
        // Random pauses do not run in step with the sender's timers. A late insert does not delay the next one.
        next += PAUSE.mul_f64(rand::random_range(0.5..1.5));
        tokio::time::sleep_until(next.into()).await;
        begun.push(Instant::now());
        sqlx::query(AssertSqlSafe(insert.as_str()))
            .bind(number.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(begun)
}
