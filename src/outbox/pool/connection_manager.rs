//! Makes the connections of a pool, and decides whether a connection may be reused.

use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::{Executor, PgConnection};

use super::{LOCK_TIMEOUT, PoolEpoch, Pooler, SERVER_GRACE, STATEMENT_TIMEOUT, within};
use crate::outbox::servers::{SESSION_GUARDS, Servers};
use crate::retry::shortened_at_random;

/// Default maximum age of a connection. Without a maximum, a connection would keep an old login, an old address and the
/// memory that its server process has gathered.
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_mins(30);
/// The pool checks a connection that was idle for so long before it is reused.
const CHECK_AFTER: Duration = Duration::from_secs(2);
/// How long that check may take.
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

/// The session settings of a direct connection. They override the defaults of the database and of the role. A pooler in
/// transaction mode would lose them, so each call carries its own there.
fn session_settings(statement_timeout: Duration) -> String {
    format!(
        "{SESSION_GUARDS}; set default_transaction_isolation = 'read committed'; set lock_timeout = {}; set statement_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        statement_timeout.as_millis()
    )
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
            max_age: shortened_at_random(self.max_age),
        })
    }

    /// Checks only connections that were idle, because firewalls and proxies drop idle connections silently. A check before
    /// each statement would add a round trip to every claim. A busy connection that dies fails the statement itself, and
    /// every caller repeats that.
    async fn recycle(
        &self,
        pooled: &mut PooledConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if pooled.in_use || pooled.epoch != self.epoch.count() {
            return Err(RecycleError::message("the connection may be dead"));
        }
        if pooled.made_at.elapsed() > pooled.max_age {
            return Err(RecycleError::message("the connection is too old"));
        }
        if metrics.last_used() > CHECK_AFTER {
            let check = within(CHECK_TIMEOUT, pooled.connection.execute("select"));
            if let Err(error) = check.await {
                // The other idle connections are probably dead too, and each check would take as long.
                self.epoch.advance();
                return Err(RecycleError::Backend(error));
            }
        }
        Ok(())
    }
}
