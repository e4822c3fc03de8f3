//! What producers notice of a worker: how many transactions they commit beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use super::drain::count;
use super::figures::Figures;
use super::stage::{Machine, Sender, Setting, Stage};

/// Connections that insert, each as fast as it can.
const PRODUCERS: u32 = 32;
/// How long they run before they are counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// Beside what they work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nobody.
    Nobody,
    /// A worker that sends what it may.
    Worker,
    /// Nobody, but each insert rings the bell for a worker that sleeps.
    Bell,
}

/// Producers at work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producers {
    pub(super) beside: Beside,
    pub(super) counted_for: Duration,
}

impl Producers {
    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        let setting = Setting {
            limit: Some(500),
            waiting: 20_000,
            ..Setting::of(Sender::Worker)
        };
        let stage = Stage::set(machine, setting).await?;
        let senders = match self.beside {
            Beside::Worker => Some(stage.start().await?),
            Beside::Nobody | Beside::Bell => None,
        };
        if self.beside == Beside::Bell {
            sqlx::query(
                "insert into signaling.bell (app, rings_until) values ('default', now() + interval '1 hour')",
            )
            .execute(&stage.pool)
            .await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(PRODUCERS)
            .min_connections(PRODUCERS)
            .connect(&stage.url)
            .await?;
        let commits = Arc::new(AtomicU64::new(0));
        let mut producers = JoinSet::new();
        for _ in 0..PRODUCERS {
            let (commits, mut connection) = (Arc::clone(&commits), pool.acquire().await?);
            producers.spawn(async move {
                loop {
                    let inserted = sqlx::query(
                        "insert into signaling.outbox (sender, destination, payload) values ('bench', 'bob', 'hello')",
                    )
                    .execute(&mut *connection)
                    .await;
                    if inserted.is_err() {
                        return inserted.map(drop);
                    }
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let calls_before = stage.api.summary().await?.calls;
        let (begun, before) = (Instant::now(), commits.load(Ordering::Relaxed));
        tokio::select! {
            () = tokio::time::sleep(self.counted_for) => {}
            Some(ended) = producers.join_next() => ended??,
        }
        let made = commits.load(Ordering::Relaxed) - before;
        let seconds = begun.elapsed().as_secs_f64();
        let calls = stage.api.summary().await?.calls - calls_before;
        producers.shutdown().await;
        pool.close().await;
        if let Some(senders) = senders {
            stage.stop(senders).await?;
        }
        stage.clear().await?;
        let mut figures = Figures::default();
        figures.add("commits_per_s", count(made) / seconds);
        figures.add("messages_per_s", count(calls) / seconds);
        Ok(figures)
    }
}
