//! A producer that inserts messages one by one, each in its own transaction, and keeps the times.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres};

use crate::environment::Environment;

/// Reads of the API's clock. The read with the shortest round trip is the most exact one.
const CLOCK_READS: usize = 20;

#[derive(Debug)]
pub(crate) struct PacedProducer<'a> {
    environment: &'a Environment<'a>,
    connection: PoolConnection<Postgres>,
    insert: String,
    pause: Duration,
    /// In the order of the insert, which is also the number that the payload carries.
    pub(crate) inserted: Vec<Inserted>,
}

/// The times of one insert, by the clock of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inserted {
    /// Just before the insert is sent to the server. A user's delay begins here, so it includes the commit.
    pub(crate) begun: Instant,
    pub(crate) committed: Instant,
}

impl<'a> PacedProducer<'a> {
    pub(crate) async fn connect(
        environment: &'a Environment<'a>,
        per_s: u32,
    ) -> anyhow::Result<Self> {
        let table = environment.sender().table();
        Ok(Self {
            connection: environment.pool.acquire().await?,
            insert: format!(
                "insert into {table} (sender, destination, payload) values ('bench', 'bob', $1)"
            ),
            pause: Duration::from_secs(1) / per_s,
            inserted: Vec::new(),
            environment,
        })
    }

    /// Inserts so many messages.
    pub(crate) async fn insert(&mut self, messages: usize) -> anyhow::Result<()> {
        let mut next = Instant::now();
        for _ in 0..messages {
            self.insert_at(&mut next).await?;
        }
        Ok(())
    }

    /// Inserts messages for so long, and returns the time of the start.
    pub(crate) async fn insert_for(&mut self, length: Duration) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        let mut next = begun;
        while begun.elapsed() < length {
            self.insert_at(&mut next).await?;
        }
        Ok(begun)
    }

    /// Inserts a message one pause after `next`, and moves `next` there. A late insert does not delay the following
    /// ones.
    async fn insert_at(&mut self, next: &mut Instant) -> anyhow::Result<()> {
        // A random pause does not run in step with the timers of the sender.
        *next += self.pause.mul_f64(rand::random_range(0.5..1.5));
        tokio::time::sleep_until((*next).into()).await;
        let number = self.inserted.len().to_string();
        let begun = Instant::now();
        sqlx::query(AssertSqlSafe(self.insert.as_str()))
            .bind(number)
            .execute(&mut *self.connection)
            .await?;
        self.inserted.push(Inserted {
            begun,
            committed: Instant::now(),
        });
        Ok(())
    }

    /// The time from each insert to the arrival of its call at the API. None where no call arrived.
    pub(crate) async fn delays_ms(&self) -> anyhow::Result<Vec<Option<f64>>> {
        let api_epoch = self.api_epoch().await?;
        let mut delays_ms = vec![None; self.inserted.len()];
        for call in self.environment.api.all_calls().await? {
            let number = call.payload.and_then(|payload| payload.parse().ok());
            if let Some(number) = number.filter(|number: &usize| *number < delays_ms.len()) {
                let called = api_epoch + Duration::from_micros(call.at_us);
                let delay = called.saturating_duration_since(self.inserted[number].begun);
                delays_ms[number] = Some(millis(delay));
            }
        }
        Ok(delays_ms)
    }

    /// The start of the API's ledger, by the clock of this process.
    async fn api_epoch(&self) -> anyhow::Result<Instant> {
        let mut best: Option<(Duration, Instant)> = None;
        for _ in 0..CLOCK_READS {
            let asked = Instant::now();
            let at = Duration::from_micros(self.environment.api.summary().await?.at_us);
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

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
