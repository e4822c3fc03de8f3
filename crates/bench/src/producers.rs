//! The commits a second of producers, with and without a worker on the same database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::environment::Environment;
use crate::measurements::{Measurements, count};

/// Connections that insert without a pause.
const PRODUCERS: u32 = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const INSERT: &str =
    "insert into signaling.outbox (sender, destination, payload) values ('bench', 'bob', 'hello')";
const NOTIFY_EACH_COMMIT: &str = "insert into signaling.wakeup (app, wanted_until) values ('default', now() + interval '1 hour')";

pub(crate) async fn measure(environment: Environment<'_>) -> anyhow::Result<Measurements> {
    let workload = environment.workload;
    let senders = environment.start_senders().await?;
    if workload.notifies {
        environment.execute(NOTIFY_EACH_COMMIT).await?;
    }
    let commits = Arc::new(AtomicU64::new(0));
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        let mut connection = sqlx::PgConnection::connect(&environment.url).await?;
        let commits = Arc::clone(&commits);
        producers.spawn(async move {
            loop {
                sqlx::query(INSERT).execute(&mut connection).await?;
                commits.fetch_add(1, Ordering::Relaxed);
            }
            #[expect(unreachable_code, reason = "it gives the task its type")]
            sqlx::Result::<()>::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let calls_before = environment.calls();
    let (begun, commits_before) = (Instant::now(), commits.load(Ordering::Relaxed));
    tokio::select! {
        () = tokio::time::sleep(workload.measured_for) => {}
        Some(ended) = producers.join_next() => ended??,
    }
    let made = commits.load(Ordering::Relaxed) - commits_before;
    let seconds = begun.elapsed().as_secs_f64();
    let calls = environment.calls() - calls_before;
    producers.shutdown().await;
    environment.stop_senders(senders).await?;
    environment.finish(u64::MAX).await?;
    Ok(Measurements::from([
        ("commits_per_s".into(), count(made) / seconds),
        ("messages_per_s".into(), count(calls) / seconds),
    ]))
}
