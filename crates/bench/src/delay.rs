//! The delay from the insert of a message to its call, while the load is low.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::AssertSqlSafe;

use crate::drain::add_costs;
use crate::environment::{DatabaseServer, Environment, EnvironmentConfig, Sender};
use crate::measurements::{Measurements, median, percentile};

/// How long the sender runs before the first insert.
const WARM_UP: Duration = Duration::from_secs(2);
/// Messages before the measured ones. The first calls have to open their connections.
const WARM_UP_MESSAGES: usize = 100;
/// The measurement fails if no call arrives for so long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads of the API's clock. The read with the shortest round trip is the most exact one.
const CLOCK_READS: usize = 20;

/// Inserts messages one by one, each in its own transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delay {
    pub(crate) sender: Sender,
    pub(crate) per_s: u32,
    pub(crate) messages: usize,
}

impl Delay {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let environment = Environment::create(server, EnvironmentConfig::of(self.sender)).await?;
        let senders = environment.start_senders().await?;
        tokio::time::sleep(WARM_UP).await;
        let insert = format!(
            "insert into {} (sender, destination, payload) values ('bench', 'bob', $1)",
            self.sender.table()
        );
        let all = self.messages + WARM_UP_MESSAGES;
        let mut inserted = Vec::with_capacity(all);
        let mut committed = Vec::with_capacity(all);
        let pause = Duration::from_secs(1) / self.per_s;
        let mut producer = environment.pool.acquire().await?;
        let mut next = Instant::now();
        for number in 0..all {
            // A random pause does not run in step with the timers of the sender.
            next += pause.mul_f64(rand::random_range(0.5..1.5));
            tokio::time::sleep_until(next.into()).await;
            inserted.push(Instant::now());
            sqlx::query(AssertSqlSafe(insert.as_str()))
                .bind(number.to_string())
                .execute(&mut *producer)
                .await?;
            committed.push(Instant::now());
        }
        drop(producer);
        environment
            .api
            .wait_for_calls(all as u64, PROGRESS_TIMEOUT)
            .await?;
        let api_epoch = self.api_epoch(&environment).await?;
        let costs = environment.stop_senders(senders).await?;

        let mut delays_ms = vec![None; all];
        for call in environment.api.all_calls().await? {
            let number = call.payload.and_then(|payload| payload.parse().ok());
            if let Some(number) = number.filter(|number: &usize| *number < all) {
                let called = api_epoch + Duration::from_micros(call.at_us);
                delays_ms[number] =
                    Some(millis(called.saturating_duration_since(inserted[number])));
            }
        }
        let delays_ms: Option<Vec<f64>> = delays_ms.into_iter().skip(WARM_UP_MESSAGES).collect();
        let delays_ms = delays_ms.context("the API never received one of the messages")?;
        let commits_ms: Vec<f64> = inserted
            .iter()
            .zip(&committed)
            .map(|(inserted, committed)| millis(*committed - *inserted))
            .collect();
        environment.remove().await?;

        let mut measurements = Measurements::default();
        measurements.add("delay_p50_ms", median(delays_ms.clone()));
        measurements.add("delay_p95_ms", percentile(delays_ms.clone(), 0.95));
        measurements.add("delay_p99_ms", percentile(delays_ms.clone(), 0.99));
        measurements.add("delay_max_ms", percentile(delays_ms, 1.0));
        measurements.add("commit_p50_ms", median(commits_ms.clone()));
        measurements.add("commit_p99_ms", percentile(commits_ms, 0.99));
        add_costs(&mut measurements, &costs, all as u64);
        Ok(measurements)
    }

    /// The start of the API's ledger, by the clock of this process.
    async fn api_epoch(&self, environment: &Environment<'_>) -> anyhow::Result<Instant> {
        let mut best: Option<(Duration, Instant)> = None;
        for _ in 0..CLOCK_READS {
            let asked = Instant::now();
            let at = Duration::from_micros(environment.api.summary().await?.at_us);
            let took = asked.elapsed();
            if let Some(epoch) = (asked + took / 2).checked_sub(at)
                && best.is_none_or(|(shortest, _)| took < shortest)
            {
                best = Some((took, epoch));
            }
        }
        best.map(|(_, epoch)| epoch).ok_or_else(|| {
            anyhow::anyhow!(
                "the start of the API's ledger can't be expressed by this machine's clock"
            )
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
