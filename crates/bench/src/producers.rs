//! How many transactions producers commit with and without a worker on the same database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use crate::database_server::DatabaseServer;
use crate::drain::count;
use crate::environment::{Environment, EnvironmentConfig, Sender};
use crate::measurements::Measurements;

/// Connections that insert, each without a pause.
const PRODUCERS: u32 = 32;
/// How long they run before their commits are counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// The process that runs at the same time as the producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alongside {
    NoWorker,
    /// A worker that sends at the limit.
    BusyWorker,
    /// No worker, but each insert notifies as if a worker were idle.
    Notifications,
}

#[derive(Debug, Clone)]
pub(crate) struct Producers {
    pub(crate) sender: Sender,
    pub(crate) alongside: Alongside,
    pub(crate) measured_for: Duration,
}

impl Producers {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let config = EnvironmentConfig {
            limit: Some(500),
            backlog: 20_000,
            ..EnvironmentConfig::of(self.sender.clone())
        };
        let environment = Environment::create(server, config).await?;
        let senders = match self.alongside {
            Alongside::BusyWorker => Some(environment.start_senders().await?),
            Alongside::NoWorker | Alongside::Notifications => None,
        };
        if self.alongside == Alongside::Notifications {
            notify_each_commit(&environment.pool).await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(PRODUCERS)
            .min_connections(PRODUCERS)
            .connect(&environment.url)
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
        let calls_before = environment.api.summary().await?.calls;
        let (begun, before) = (Instant::now(), commits.load(Ordering::Relaxed));
        tokio::select! {
            () = tokio::time::sleep(self.measured_for) => {}
            Some(ended) = producers.join_next() => ended??,
        }
        let made = commits.load(Ordering::Relaxed) - before;
        let seconds = begun.elapsed().as_secs_f64();
        let calls = environment.api.summary().await?.calls - calls_before;
        producers.shutdown().await;
        pool.close().await;
        if let Some(senders) = senders {
            environment.stop_senders(senders).await?;
        }
        environment.remove().await?;
        let mut measurements = Measurements::default();
        measurements.add("commits_per_s", count(made) / seconds);
        measurements.add("messages_per_s", count(calls) / seconds);
        Ok(measurements)
    }
}

/// Makes each insert notify, as if a worker were idle. Worker binaries differ in the table that the insert's trigger reads.
///
/// # Errors
/// If the database has none of the tables.
async fn notify_each_commit(pool: &PgPool) -> anyhow::Result<()> {
    for (table, insert) in [
        (
            "signaling.wakeup",
            "insert into signaling.wakeup (app, wanted_until) values ('default', now() + interval '1 hour')",
        ),
        (
            "signaling.bell",
            "insert into signaling.bell (app, rings_until) values ('default', now() + interval '1 hour')",
        ),
    ] {
        let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .bind(table)
            .fetch_one(pool)
            .await?;
        if exists {
            sqlx::query(insert).execute(pool).await?;
            return Ok(());
        }
    }
    bail!("the worker's migrations created no table that makes inserts notify")
}
