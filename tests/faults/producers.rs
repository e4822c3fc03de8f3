//! Applications that commit messages continuously and remember the committed ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

const PRODUCERS: usize = 2;
/// The pause between two transactions of a producer.
const PAUSE: Duration = Duration::from_millis(50);
/// While the API fails for half of the calls, some messages fail ten times in a row by chance.
const MAX_ATTEMPTS: i32 = 50;

/// The state that all producers of a round share.
struct Round {
    url: String,
    name: String,
    next_number: AtomicU64,
    committed: Mutex<Vec<String>>,
}

/// Running producers. Dropping this value stops them.
pub(crate) struct Producers {
    round: Arc<Round>,
    tasks: JoinSet<()>,
}

impl Producers {
    /// Starts producers whose payloads begin with `round`.
    pub(crate) fn start(url: &str, round: &str) -> Self {
        let round = Arc::new(Round {
            url: url.to_owned(),
            name: round.to_owned(),
            next_number: AtomicU64::new(0),
            committed: Mutex::default(),
        });
        let producers = (0..PRODUCERS).map(|_| Arc::clone(&round).produce());
        let tasks = producers.collect();
        Self { round, tasks }
    }

    /// Stops the producers, and returns the payloads of all committed transactions.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        self.tasks.shutdown().await;
        std::mem::take(&mut *self.round.committed.lock().expect("whole"))
    }
}

impl Round {
    async fn produce(self: Arc<Self>) {
        loop {
            // During an outage of the database, the producer tries to connect.
            if let Ok(mut connection) = PgConnection::connect(&self.url).await {
                while let Ok(payloads) = self.commit(&mut connection).await {
                    self.committed.lock().expect("whole").extend(payloads);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One transaction with a message of each kind: to a peer, to a channel, at most once.
    async fn commit(&self, connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
        let number = || self.next_number.fetch_add(1, Ordering::Relaxed);
        let payloads: Vec<String> = (0..3)
            .map(|_| format!("{}-{}", self.name, number()))
            .collect();
        let mut transaction = connection.begin().await?;
        sqlx::query(
            "insert into signaling.outbox (sender, destination, channel_name, payload, at_most_once, max_attempts)
             select 'alice', case when kind <> 2 then 'bob' end, case when kind = 2 then 'lobby' end, payload, kind = 3, $2
             from unnest($1::text[]) with ordinality as message (payload, kind)",
        )
        .bind(&payloads)
        .bind(MAX_ATTEMPTS)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(payloads)
    }
}
