//! How soon a message is called that is inserted while little goes on.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::drain::add_costs;
use super::figures::{Figures, median, percentile};
use super::stage::{Machine, Sender, Setting, Stage};

/// How long the sender runs before anything is inserted.
const WARM_UP: Duration = Duration::from_secs(2);
/// The first messages, which find connections not made yet.
const NOT_COUNTED: usize = 100;
/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks at the API's clock, of which the shortest counts.
const CLOCK_LOOKS: usize = 20;

/// Messages inserted one by one, each in its own transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delay {
    pub(super) sender: Sender,
    pub(super) per_s: u32,
    pub(super) messages: usize,
}

impl Delay {
    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        let stage = Stage::set(machine, Setting::of(self.sender)).await?;
        let senders = stage.start().await?;
        tokio::time::sleep(WARM_UP).await;
        let insert = match self.sender {
            Sender::Worker => {
                "insert into signaling.outbox (sender, destination, payload) values ('bench', 'bob', $1)"
            }
            Sender::HandWritten => {
                "insert into hand_written.message (sender, destination, payload) values ('bench', 'bob', $1)"
            }
        };
        let all = self.messages + NOT_COUNTED;
        let mut inserted = Vec::with_capacity(all);
        let mut committed = Vec::with_capacity(all);
        let pause = Duration::from_secs(1) / self.per_s;
        let mut producer = stage.pool.acquire().await?;
        let mut next = Instant::now();
        for number in 0..all {
            // Not in step with anybody's timers.
            next += pause.mul_f64(rand::random_range(0.5..1.5));
            tokio::time::sleep_until(next.into()).await;
            inserted.push(Instant::now());
            sqlx::query(insert)
                .bind(number.to_string())
                .execute(&mut *producer)
                .await?;
            committed.push(Instant::now());
        }
        drop(producer);
        stage.api.until_calls(all as u64, PATIENCE).await?;
        let api_epoch = self.api_epoch(&stage).await?;
        let costs = stage.stop(senders).await?;

        let mut delays_ms = vec![None; all];
        for call in stage.api.all_calls().await? {
            let number = call.payload.and_then(|payload| payload.parse().ok());
            if let Some(number) = number.filter(|number: &usize| *number < all) {
                let called = api_epoch + Duration::from_micros(call.at_us);
                delays_ms[number] =
                    Some(millis(called.saturating_duration_since(inserted[number])));
            }
        }
        let delays_ms: Option<Vec<f64>> = delays_ms.into_iter().skip(NOT_COUNTED).collect();
        let delays_ms = delays_ms.context("a message was never called")?;
        let commits_ms: Vec<f64> = inserted
            .iter()
            .zip(&committed)
            .map(|(inserted, committed)| millis(*committed - *inserted))
            .collect();
        stage.clear().await?;

        let mut figures = Figures::default();
        figures.add("delay_p50_ms", median(delays_ms.clone()));
        figures.add("delay_p95_ms", percentile(delays_ms.clone(), 0.95));
        figures.add("delay_p99_ms", percentile(delays_ms.clone(), 0.99));
        figures.add("delay_max_ms", percentile(delays_ms, 1.0));
        figures.add("commit_p50_ms", median(commits_ms.clone()));
        figures.add("commit_p99_ms", percentile(commits_ms, 0.99));
        add_costs(&mut figures, &costs, all as u64);
        Ok(figures)
    }

    /// When the ledger of the API began, by this process's clock.
    async fn api_epoch(&self, stage: &Stage<'_>) -> anyhow::Result<Instant> {
        let mut best: Option<(Duration, Instant)> = None;
        for _ in 0..CLOCK_LOOKS {
            let asked = Instant::now();
            let at = Duration::from_micros(stage.api.summary().await?.at_us);
            let took = asked.elapsed();
            if let Some(epoch) = (asked + took / 2).checked_sub(at)
                && best.is_none_or(|(shortest, _)| took < shortest)
            {
                best = Some((took, epoch));
            }
        }
        best.map(|(_, epoch)| epoch)
            .ok_or_else(|| anyhow::anyhow!("the API is older than this machine's clock"))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
