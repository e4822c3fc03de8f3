//! Connections to the database: bounded in number and in time, and usable through a pooler in transaction mode.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};

use crate::error_text::database_error_text;
use crate::outbox::pool::statement::{Statement, StatementMetrics};
use crate::outbox::pool::{
    ConnectionManager, DEFAULT_MAX_AGE, DbPool, PoolEpoch, Pooler, Session, within,
};
use crate::outbox::servers::{
    CONNECT_TIMEOUT, DatabaseSource, ParameterError, Servers, TlsFileError,
};
use crate::pace::{DbTime, SharedClock};
use crate::secret::SecretError;

/// Connections for what no message waits for.
const MONITORING_CONNECTIONS: u32 = 2;
/// How long the server works on a statement of those who look on: less than any of them waits.
const READ_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The database with the outbox, over a bounded number of connections.
#[derive(Debug)]
pub(crate) struct Outbox {
    pool: DbPool,
    /// A connection of its own, so that outcomes are saved whatever the lanes wait for.
    recorder: DbPool,
    /// Connections for monitoring: stats, status queries and operators' actions. A pool of its own, so that these never
    /// delay a claim or a record.
    monitoring: DbPool,
    epoch: PoolEpoch,
    stats: Arc<StatementMetrics>,
    servers: Servers,
    pooler: Option<Pooler>,
    max_age: Duration,
    clock: SharedClock,
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The URL or a variable can't be used.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The file with the URL can't be read.
    #[error(transparent)]
    Source(#[from] SecretError),
    /// A certificate or key can't be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// The database does not answer, or refuses the login.
    #[error(
        "the database at {address} can't be used: {}",
        database_error_text(source)
    )]
    Unreachable {
        address: String,
        source: sqlx::Error,
    },
}

impl Outbox {
    /// Connects, and detects a pooler in transaction mode. Connections are at most [`DEFAULT_MAX_AGE`] old.
    pub(crate) async fn connect(
        source: impl Into<DatabaseSource>,
        max_connections: u32,
    ) -> Result<Self, ConnectError> {
        Self::connect_with(source, max_connections, DEFAULT_MAX_AGE).await
    }

    /// As [`connect`](Self::connect), with another maximum age.
    pub(crate) async fn connect_with(
        source: impl Into<DatabaseSource>,
        max_connections: u32,
        max_age: Duration,
    ) -> Result<Self, ConnectError> {
        let servers = Servers::new(source.into())?;
        let pooler = Box::pin(transaction_pooler(&servers))
            .await
            .map_err(|source| ConnectError::Unreachable {
                address: servers.address(),
                source,
            })?;
        let epoch = PoolEpoch::default();
        let stats = Arc::new(StatementMetrics::new());
        let pool = |connections| {
            let manager = ConnectionManager {
                servers: servers.clone(),
                pooler,
                epoch: epoch.clone(),
                max_age,
            };
            DbPool::new(manager, Arc::clone(&stats), connections)
        };
        Ok(Self {
            pool: pool(max_connections),
            recorder: pool(1),
            monitoring: pool(MONITORING_CONNECTIONS),
            epoch,
            stats,
            servers,
            pooler,
            max_age,
            clock: SharedClock::default(),
        })
    }

    /// Whether a pooler in transaction mode is in between: sessions keep nothing, and there is no LISTEN.
    pub(crate) fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    /// When a statement was last answered, other than one of those who look on.
    pub(crate) fn last_response_at(&self) -> Option<Instant> {
        self.epoch.last_response_at()
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// A time of the database that is certainly over, even if the clock was set ahead a moment ago.
    pub(super) fn over_before(&self) -> DbTime {
        let over_before = self.clock.over_before(Instant::now(), Duration::ZERO);
        over_before.unwrap_or(DbTime::INFINITY)
    }

    /// The servers, for work that needs a connection of its own: migrations and LISTEN.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Advice for an operator whose login the database refuses. None for any other error.
    pub(crate) fn login_advice(&self, error: &sqlx::Error) -> Option<String> {
        self.servers.login_advice(error)
    }

    /// The greatest age of a connection.
    pub(super) fn max_age(&self) -> Duration {
        self.max_age
    }

    pub(super) fn pool(&self) -> &DbPool {
        &self.pool
    }

    pub(super) fn recorder_pool(&self) -> &DbPool {
        &self.recorder
    }

    pub(super) fn monitoring_pool(&self) -> &DbPool {
        &self.monitoring
    }

    /// Reads what people and monitors want to see, within [`READ_TIMEOUT`].
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.run_monitoring(Statement::Read, READ_TIMEOUT, async |session| {
            let value = work(session).await?;
            session.finish().await?;
            Ok(value)
        })
        .await
    }

    /// Runs work of monitoring or an operator in a transaction, which the work ends itself. The server also gives up a
    /// statement that takes longer than the deadline.
    pub(super) async fn run_monitoring<T>(
        &self,
        statement: Statement,
        deadline: Duration,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let begun = Instant::now();
        // The server ends the statement first.
        let timeout = CONNECT_TIMEOUT + deadline + Duration::from_secs(1);
        let result = within(timeout, async {
            let mut session = self.monitoring.transaction(Some(deadline)).await?;
            work(&mut session).await
        })
        .await;
        self.stats.observe(statement, begun, &result);
        result
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.recorder.close().await;
        self.monitoring.close().await;
    }
}

/// True if the server accepts `client_connection_check_interval`, as in
/// [`SESSION_GUARDS`](crate::outbox::servers::SESSION_GUARDS).
const CHECKS_CLIENTS: &str = "select pg_catalog.strpos(pg_catalog.version(), 'linux') operator(pg_catalog.>) 0 \
    and pg_catalog.current_setting('client_connection_check_interval', true) is not null";

/// Two connections that are open at once have two servers, each its own throughout, unless a pooler lends servers out by
/// the transaction. Statements without parameters go as simple queries, which any pooler can pass on.
async fn transaction_pooler(servers: &Servers) -> Result<Option<Pooler>, sqlx::Error> {
    let first = servers.connect().await?;
    // The same server again: processes of different servers may have the same number.
    let options = servers.options()?;
    within(CONNECT_TIMEOUT, async {
        compare_servers([first, options.connect().await?]).await
    })
    .await
}

async fn compare_servers(
    mut connections: [PgConnection; 2],
) -> Result<Option<Pooler>, sqlx::Error> {
    let mut servers = [HashSet::new(), HashSet::new()];
    // Not in turn: a pooler that gives its servers out in turn would give each connection the same one every time.
    for index in [0, 1, 1, 0, 0, 1] {
        let row = connections[index]
            .fetch_one("select pg_backend_pid()")
            .await?;
        servers[index].insert(row.try_get::<i32, _>(0)?);
    }
    let is_shared = servers.iter().any(|pids| pids.len() > 1) || servers[0] == servers[1];
    let pooler = if is_shared {
        let row = connections[0].fetch_one(CHECKS_CLIENTS).await?;
        let checks_clients = row.try_get(0)?;
        Some(Pooler { checks_clients })
    } else {
        None
    };
    for connection in connections {
        connection.close().await?;
    }
    Ok(pooler)
}
