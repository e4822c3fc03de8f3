//! Makes the connections of a pool, detects a pooler in transaction mode, such as PgBouncer, and decides whether a connection
//! is used again.
//!
//! - **Epoch.** A connection failure begins a new epoch for all pools of the process, because their connections lead to the
//!   same server over the same network. Connections of earlier epochs are not used again: each of them would block a
//!   statement until its timeout.
//! - **Age.** A connection has a maximum age. Otherwise it would keep an old login, an old address and the memory that its
//!   server process has gathered.
//! - **Check.** Firewalls drop idle connections silently, so the worker checks a connection that was idle. A check before
//!   each statement would add a round trip to every claim.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::{LOCK_TIMEOUT, SERVER_GRACE, STATEMENT_TIMEOUT, is_timeout, within};
use crate::outbox::errors::is_connection_error;
use crate::outbox::servers::{CONNECT_TIMEOUT, Servers};
use crate::retry::shortened_at_random;

pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_mins(30);
const CHECK_AFTER: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of each direct session.
///
/// - `idle_session_timeout`: a server that ends idle sessions would fail the next statement of a quiet app.
/// - `tcp_keepalives_*`: the server's probes keep firewalls from forgetting a quiet connection, and end the session of a
///   worker whose host has died.
/// - `client_connection_check_interval`: Postgres ends a statement soon after the client has closed the connection. Only
///   servers on Linux are sure to accept it.
pub(in crate::outbox) const SESSION_GUARDS: &str = "
    set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3;
    set idle_session_timeout = 0;
    select pg_catalog.set_config('client_connection_check_interval', '1000', false)
    where pg_catalog.version() operator(pg_catalog.~) 'linux'";
/// The same setting, for each transaction behind a pooler.
const TRANSACTION_GUARD: &str = "; set local client_connection_check_interval = 1000";

#[derive(Clone)]
pub(in crate::outbox) struct ConnectionManager {
    pub(in crate::outbox) servers: Arc<Servers>,
    /// Settings of each transaction behind a pooler in transaction mode. None for direct connections.
    pub(in crate::outbox) pooler: Option<&'static str>,
    pub(in crate::outbox) epoch: Arc<PoolEpoch>,
    pub(in crate::outbox) max_age: Duration,
}

pub(in crate::outbox) struct PooledConnection {
    pub(super) connection: PgConnection,
    /// A statement or a transaction has begun and not ended.
    pub(super) in_use: bool,
    pub(super) statement_timeout: Duration,
    epoch: u64,
    expires_at: Instant,
}

/// The end of a new connection: its maximum age, or up to a fifth earlier, so that connections of one start do not end at
/// the same moment.
pub(in crate::outbox) fn expires_at(max_age: Duration) -> Instant {
    Instant::now() + shortened_at_random(max_age)
}

impl Manager for ConnectionManager {
    type Type = PooledConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PooledConnection, sqlx::Error> {
        let epoch = self.epoch.count.load(Ordering::Relaxed);
        let (mut connection, _) = Box::pin(self.servers.connect()).await?;
        let statement_timeout = STATEMENT_TIMEOUT + SERVER_GRACE;
        if self.pooler.is_none() {
            // A database or a role may have other defaults for these settings.
            let settings = format!(
                "{SESSION_GUARDS}; set default_transaction_isolation = 'read committed'; set lock_timeout = {}; set statement_timeout = {}",
                LOCK_TIMEOUT.as_millis(),
                statement_timeout.as_millis()
            );
            let set = connection.execute(AssertSqlSafe(settings));
            within(STATEMENT_TIMEOUT, set).await?;
        }
        Ok(PooledConnection {
            connection,
            in_use: false,
            statement_timeout,
            epoch,
            expires_at: expires_at(self.max_age),
        })
    }

    async fn recycle(
        &self,
        pooled: &mut PooledConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if pooled.in_use || pooled.epoch != self.epoch.count.load(Ordering::Relaxed) {
            return Err(RecycleError::message("the connection may be dead"));
        }
        if Instant::now() > pooled.expires_at {
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

#[derive(Debug, Default)]
pub(in crate::outbox) struct PoolEpoch {
    count: AtomicU64,
    last_response: Mutex<Option<Instant>>,
}

impl PoolEpoch {
    fn advance(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::outbox) fn last_response_at(&self) -> Option<Instant> {
        *self.last_response.lock()
    }

    /// Begins a new epoch if the server or the network failed. A statement that times out while Postgres answers
    /// other statements is only slow.
    pub(super) fn observe<T>(&self, timeout: Duration, result: &Result<T, sqlx::Error>) {
        let is_slow = |error| {
            let last = self.last_response_at();
            is_timeout(error) && last.is_some_and(|last| last.elapsed() < timeout / 2)
        };
        match result {
            Ok(_) => {
                *self.last_response.lock() = Some(Instant::now());
            }
            Err(error) if is_connection_error(error) && !is_slow(error) => self.advance(),
            Err(_) => {}
        }
    }
}

/// Compares the server processes of two connections that are open at once. Each direct connection has a process of its own. A
/// pooler in transaction mode shares processes between connections. The statements have no parameters, so that any pooler can
/// pass them on. Behind a pooler, returns the settings for each transaction. Returns None for direct connections.
pub(in crate::outbox) async fn detect_pooler(
    servers: &Servers,
) -> Result<Option<&'static str>, sqlx::Error> {
    let mut connections = [servers.connect().await?.0, servers.connect().await?.0];
    within(CONNECT_TIMEOUT, async {
        let mut processes = [HashSet::new(), HashSet::new()];
        // Strict turns would hide a pooler that hands out its processes in turn: each connection would get the same one.
        for index in [0, 1, 1, 0, 0, 1] {
            let pid = connections[index].fetch_one("select pg_backend_pid()");
            processes[index].insert(pid.await?.try_get::<i32, _>(0)?);
        }
        let is_shared = processes.iter().any(|pids| pids.len() > 1) || processes[0] == processes[1];
        let is_linux = "select pg_catalog.version() operator(pg_catalog.~) 'linux'";
        let is_linux = connections[0].fetch_one(is_linux).await?.try_get(0)?;
        for connection in connections {
            connection.close().await?;
        }
        Ok(is_shared.then_some(if is_linux { TRANSACTION_GUARD } else { "" }))
    })
    .await
}
