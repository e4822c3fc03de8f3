//! A producer that inserts messages one by one, each in its own transaction, and keeps the times.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres};

use crate::environment::Environment;

/// A low load: 100 inserts a second.
const PAUSE: Duration = Duration::from_millis(10);
/// The read with the shortest round trip is the most exact one.
const CLOCK_READS: usize = 20;

pub(crate) struct PacedProducer<'a> {
    environment: &'a Environment<'a>,
    connection: PoolConnection<Postgres>,
    insert: String,
    /// By the number in the payload.
    pub(crate) inserted: Vec<Inserted>,
}

/// The times of an insert, by the clock of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inserted {
    /// Just before the insert is sent to the server.
    pub(crate) begun: Instant,
    pub(crate) committed: Instant,
}

impl<'a> PacedProducer<'a> {
    pub(crate) async fn connect(environment: &'a Environment<'a>) -> anyhow::Result<Self> {
        let table = environment.workload.sender.table();
        Ok(Self {
            connection: environment.pool.acquire().await?,
            insert: format!(
                "insert into {table} (sender, destination, payload) values ('bench', 'bob', $1)"
            ),
            inserted: Vec::new(),
            environment,
        })
    }

    pub(crate) async fn insert(&mut self, messages: u64) -> anyhow::Result<()> {
        let mut next = Instant::now();
        for _ in 0..messages {
            // Random pauses do not run in step with the sender's timers. A late insert does not delay the next one.
            next += PAUSE.mul_f64(rand::random_range(0.5..1.5));
            tokio::time::sleep_until(next.into()).await;
            let number = self.inserted.len().to_string();
            let begun = Instant::now();
            sqlx::query(AssertSqlSafe(self.insert.as_str()))
                .bind(number)
                .execute(&mut *self.connection)
                .await?;
            let committed = Instant::now();
            self.inserted.push(Inserted { begun, committed });
        }
        Ok(())
    }

    /// The time from each insert to the arrival of its call. `None` if no call arrived.
    pub(crate) async fn delays_ms(&self) -> anyhow::Result<Vec<Option<f64>>> {
        let ledger_start = self.ledger_start().await?;
        let mut delays_ms = vec![None; self.inserted.len()];
        for call in self.environment.api.all_calls().await? {
            let number: Option<usize> = call.payload.and_then(|payload| payload.parse().ok());
            if let Some(number) = number.filter(|number| *number < delays_ms.len()) {
                let called = ledger_start + Duration::from_micros(call.at_us);
                let delay = called.saturating_duration_since(self.inserted[number].begun);
                delays_ms[number] = Some(millis(delay));
            }
        }
        Ok(delays_ms)
    }

    /// The start of the API's ledger, by the clock of this process.
    async fn ledger_start(&self) -> anyhow::Result<Instant> {
        let mut reads = Vec::new();
        for _ in 0..CLOCK_READS {
            let begun = Instant::now();
            let at = Duration::from_micros(self.environment.api.summary().await?.at_us);
            let took = begun.elapsed();
            reads.extend(
                (begun + took / 2)
                    .checked_sub(at)
                    .map(|start| (took, start)),
            );
        }
        let best = reads.into_iter().min();
        best.map(|(_, start)| start)
            .context("this machine's clock begins after the API's ledger")
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
