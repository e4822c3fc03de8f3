//! Makes the connections of a pool, and decides which of them may be used again.

use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::{Executor, PgConnection};

use super::{LOCK_TIMEOUT, PoolEpoch, Pooler, SERVER_GRACE, STATEMENT_TIMEOUT, within};
use crate::outbox::servers::{SESSION_GUARDS, Servers};

/// The greatest age of a connection, unless a setting says otherwise. A connection that lasted for ever would keep an old
/// login, an old address and the memory that the server's session has gathered.
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_mins(30);
/// A connection that nobody has used for so long is asked first whether it is alive.
const CHECK_AFTER: Duration = Duration::from_secs(2);
/// How long it may take to say so.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

pub(in crate::outbox) struct ConnectionManager {
    pub(in crate::outbox) servers: Servers,
    pub(in crate::outbox) pooler: Option<Pooler>,
    pub(in crate::outbox) epoch: PoolEpoch,
    pub(in crate::outbox) max_age: Duration,
}

/// A connection, and whether it can be used again.
pub(in crate::outbox) struct PooledConnection {
    pub(super) connection: PgConnection,
    /// A statement or a transaction has begun on it and has not ended.
    pub(super) in_use: bool,
    /// The session's `statement_timeout`.
    pub(super) statement_timeout: Duration,
    /// The epoch in which it was made.
    epoch: u64,
    made_at: Instant,
    max_age: Duration,
}

/// The settings of a connection, unless a pooler lends servers out by the transaction. No default of the database or the
/// role matters after that.
fn session_settings(statement_timeout: Duration) -> String {
    format!(
        "{SESSION_GUARDS}; set default_transaction_isolation = 'read committed'; set lock_timeout = {}; set statement_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        statement_timeout.as_millis()
    )
}

/// A duration shortened by up to a fifth, so that connections that were made together do not end together.
pub(in crate::outbox) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.8..=1.0))
}

impl Manager for ConnectionManager {
    type Type = PooledConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PooledConnection, sqlx::Error> {
        let epoch = self.epoch.count();
        let mut connection = Box::pin(self.servers.connect()).await?;
        let statement_timeout = STATEMENT_TIMEOUT + SERVER_GRACE;
        if self.pooler.is_none() {
            let settings = sqlx::AssertSqlSafe(session_settings(statement_timeout));
            within(STATEMENT_TIMEOUT, connection.execute(settings)).await?;
        }
        Ok(PooledConnection {
            connection,
            in_use: false,
            statement_timeout,
            epoch,
            made_at: Instant::now(),
            max_age: jittered(self.max_age),
        })
    }

    /// A connection is as good as it was left. Asking before each statement would add a round trip to every claim; a dead
    /// connection shows in the statement itself, which every caller repeats. Only a connection that was idle is asked,
    /// because firewalls and proxies drop idle connections without a word.
    async fn recycle(
        &self,
        link: &mut PooledConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if link.in_use || link.epoch != self.epoch.count() {
            return Err(RecycleError::message("the connection may be dead"));
        }
        if link.made_at.elapsed() > link.max_age {
            return Err(RecycleError::message("the connection is too old"));
        }
        if metrics.last_used() > CHECK_AFTER {
            let check = within(CHECK_TIMEOUT, link.connection.execute("select"));
            if let Err(error) = check.await {
                // The other idle ones are as dead, and each would take as long to find out.
                self.epoch.advance();
                return Err(RecycleError::Backend(error));
            }
        }
        Ok(())
    }
}
