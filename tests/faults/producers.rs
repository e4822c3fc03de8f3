//! Applications that commit messages continuously and remember the committed ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

const PRODUCERS: u64 = 2;
/// The pause between two transactions of a producer.
const PAUSE: Duration = Duration::from_millis(50);

/// Running producers. Dropping this value stops them.
pub(crate) struct Producers {
    committed: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Producers {
    /// Starts producers whose payloads begin with `round`.
    pub(crate) fn start(url: &str, round: &str) -> Self {
        let committed = Arc::<Mutex<Vec<String>>>::default();
        let numbers = Arc::new(AtomicU64::new(0));
        let tasks = (0..PRODUCERS)
            .map(|_| {
                let producer = produce(
                    url.to_owned(),
                    round.to_owned(),
                    Arc::clone(&numbers),
                    Arc::clone(&committed),
                );
                tokio::spawn(producer)
            })
            .collect();
        Self { committed, tasks }
    }

    /// Stops the producers, and returns the payloads of all committed transactions.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            task.await.ok();
        }
        std::mem::take(
            &mut *self
                .committed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn produce(
    url: String,
    round: String,
    numbers: Arc<AtomicU64>,
    committed: Arc<Mutex<Vec<String>>>,
) {
    loop {
        // During an outage of the database, the producer tries to connect.
        if let Ok(mut connection) = PgConnection::connect(&url).await {
            while let Ok(payloads) = commit(&mut connection, &round, &numbers).await {
                committed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(payloads);
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One transaction with a message of each kind: to a peer, to a channel, at most once.
async fn commit(
    connection: &mut PgConnection,
    round: &str,
    numbers: &AtomicU64,
) -> Result<Vec<String>, sqlx::Error> {
    let payloads: Vec<String> = (0..3)
        .map(|_| format!("{round}-{}", numbers.fetch_add(1, Ordering::Relaxed)))
        .collect();
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "insert into signaling.outbox (sender, destination, channel_name, payload, at_most_once)
         select 'alice', case when kind <> 2 then 'bob' end, case when kind = 2 then 'lobby' end, payload, kind = 3
         from unnest($1::text[]) with ordinality as message (payload, kind)",
    )
    .bind(&payloads)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(payloads)
}
