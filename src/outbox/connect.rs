//! Connects to the database. Lanes, recorder and monitoring have a pool each, so that none waits for another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::error_text::database_error_text;
use crate::outbox::pool::connection_manager::{ConnectionManager, detect_pooler};
use crate::outbox::pool::{DbPool, measure, within};
use crate::outbox::servers::{CONNECT_TIMEOUT, Servers};
use crate::pace::{DbTime, SharedClock};
use crate::secret::SecretSource;

const MONITORING_CONNECTIONS: u32 = 2;
/// Deadline of a query for operators and monitoring systems, shorter than their own timeouts.
const READ_TIMEOUT: Duration = Duration::from_millis(2_500);

pub(crate) struct Outbox {
    pub(super) pool: DbPool,
    /// A connection of its own, so that the recorder saves outcomes while the lanes wait.
    pub(super) recorder: DbPool,
    /// For stats, status queries and operators' actions, which must not delay a claim or a record.
    pub(super) monitoring: DbPool,
    clock: SharedClock,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Outbox")
    }
}

/// The database does not answer, or refuses the login.
#[derive(Debug, thiserror::Error)]
#[error("the database at {address} can't be used: {}", database_error_text(.source))]
pub(crate) struct Unreachable {
    address: String,
    pub(crate) source: sqlx::Error,
}

impl Outbox {
    /// Connects, and detects a pooler in transaction mode. Without a URL, libpq's variables name the database.
    pub(crate) async fn connect(
        url: Option<SecretSource>,
        max_connections: u32,
        max_age: Duration,
    ) -> anyhow::Result<Self> {
        let servers = Arc::new(Servers::new(url)?);
        let pooler = Box::pin(detect_pooler(&servers)).await;
        let pooler = pooler.map_err(|source| Unreachable {
            address: servers.address(),
            source,
        })?;
        let manager = ConnectionManager {
            servers,
            pooler,
            epoch: Arc::default(),
            max_age,
        };
        Ok(Self {
            pool: DbPool::new(manager.clone(), max_connections),
            recorder: DbPool::new(manager.clone(), 1),
            monitoring: DbPool::new(manager, MONITORING_CONNECTIONS),
            clock: SharedClock::default(),
        })
    }

    /// True behind a pooler in transaction mode, where sessions keep no settings and can't LISTEN.
    pub(crate) fn has_pooler(&self) -> bool {
        self.pool.manager().pooler.is_some()
    }

    pub(crate) fn last_response_at(&self) -> Option<Instant> {
        self.pool.manager().epoch.last_response_at()
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The latest time of the database that this process trusts, for functions that take the earlier of it and their own
    /// clock. Without it, a clock that was just set ahead would make messages old.
    pub(super) fn ended_before(&self) -> DbTime {
        let ended_before = self.clock.ended_before(Instant::now(), Duration::ZERO);
        ended_before.unwrap_or(DbTime::INFINITY)
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.pool.manager().servers
    }

    /// Runs queries for operators and monitoring systems, within [`READ_TIMEOUT`].
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.run_monitoring("read", READ_TIMEOUT, work).await
    }

    /// Runs queries or a change in a transaction on a monitoring connection. The server ends each statement at the timeout.
    pub(super) async fn run_monitoring<T>(
        &self,
        label: &'static str,
        statement_timeout: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let begun = Instant::now();
        // Longer than the server's timeout, so that the worker reports the server's error.
        let timeout = CONNECT_TIMEOUT + statement_timeout + Duration::from_secs(1);
        let result = within(
            timeout,
            self.monitoring.transaction(Some(statement_timeout), work),
        )
        .await;
        measure(label, begun, &result);
        result
    }

    pub(crate) async fn close(&self) {
        for pool in [&self.pool, &self.recorder, &self.monitoring] {
            pool.close().await;
        }
    }
}
