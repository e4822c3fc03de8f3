//! The commits a second of producers, with and without a worker on the same database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use testkit::postgres::ThrowawayPostgres;
use tokio::task::JoinSet;

use crate::environment::{Environment, Sender, Workload};
use crate::measurements::{Measurements, count};

/// Connections that insert without a pause.
const PRODUCERS: u32 = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const INSERT: &str =
    "insert into signaling.outbox (sender, destination, payload) values ('bench', 'bob', 'hello')";
/// Makes each insert notify, as if a worker were idle.
const NOTIFY_EACH_COMMIT: &str = "insert into signaling.wakeup (app, wanted_until) values ('default', now() + interval '1 hour')";

/// The load beside the producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alongside {
    NoWorker,
    /// A worker that sends at the limit.
    BusyWorker,
    /// No worker, but each insert notifies.
    Notifications,
}

pub(crate) async fn measure(
    server: &ThrowawayPostgres,
    sender: &Sender,
    alongside: Alongside,
    measured_for: Duration,
) -> anyhow::Result<Measurements> {
    let workload = Workload {
        limit: Some(500),
        backlog: 20_000,
        ..Workload::of(sender)
    };
    let environment = Environment::create(server, workload).await?;
    let mut senders = None;
    match alongside {
        Alongside::BusyWorker => senders = Some(environment.start_senders().await?),
        Alongside::Notifications => environment.execute(NOTIFY_EACH_COMMIT).await?,
        Alongside::NoWorker => {}
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
                sqlx::query(INSERT).execute(&mut *connection).await?;
                commits.fetch_add(1, Ordering::Relaxed);
            }
            #[expect(unreachable_code, reason = "it gives the task its type")]
            sqlx::Result::<()>::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let calls_before = environment.api.ledger().summary().calls;
    let (begun, commits_before) = (Instant::now(), commits.load(Ordering::Relaxed));
    tokio::select! {
        () = tokio::time::sleep(measured_for) => {}
        Some(ended) = producers.join_next() => ended??,
    }
    let made = commits.load(Ordering::Relaxed) - commits_before;
    let seconds = begun.elapsed().as_secs_f64();
    let calls = environment.api.ledger().summary().calls - calls_before;
    producers.shutdown().await;
    pool.close().await;
    if let Some(senders) = senders {
        environment.stop_senders(senders).await?;
    }
    environment.finish().await?;
    Ok(Measurements::from([
        ("commits_per_s".into(), count(made) / seconds),
        ("messages_per_s".into(), count(calls) / seconds),
    ]))
}
