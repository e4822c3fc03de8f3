//! Connections to the database: bounded in number and in time, and usable through a pooler in transaction mode.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, Row};

use crate::error_text::database_error_text;
use crate::outbox::pool::statement::{Statement, StatementMetrics};
use crate::outbox::pool::{CONNECT_TIMEOUT, DbPool, PoolEpoch, Session, url_parameters, within};
use crate::pace::{DbTime, SharedClock};
use crate::sanitize;

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
    options: PgConnectOptions,
    pooler: bool,
    clock: SharedClock,
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The URL is none. What is wrong with it is not said in its own words: it has a password in it.
    #[error(
        "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database, with other characters than letters and digits percent-encoded"
    )]
    Url,
    /// The database does not answer, or does not let us in.
    #[error(
        "the database at {host}:{port} can't be used: {}",
        database_error_text(source)
    )]
    Unreachable {
        host: String,
        port: u16,
        source: sqlx::Error,
    },
}

impl Outbox {
    /// Connects, and finds out whether a pooler in transaction mode is in between.
    pub(crate) async fn connect(
        url: &SecretString,
        max_connections: u32,
    ) -> Result<Self, ConnectError> {
        let url = url.expose_secret();
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(ConnectError::Url)?;
        // A password with one of these characters in it would be read as host and port, and be told as such.
        if let Some((authority, path)) = rest.split_once(['/', '?', '#'])
            && !authority.contains('@')
            && path.contains('@')
        {
            return Err(ConnectError::Url);
        }
        warn_of_unknown_parameters(url);
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| ConnectError::Url)?
            .application_name("signaling-worker")
            // PgBouncer refuses start-up parameters that it does not know; floats come in binary anyway.
            .extra_float_digits(None)
            .log_statements(tracing::log::LevelFilter::Off)
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO);
        let unreachable = |source| ConnectError::Unreachable {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            source,
        };
        let pooler = Box::pin(within(CONNECT_TIMEOUT, has_transaction_pooler(&options)))
            .await
            .map_err(unreachable)?;
        let epoch = PoolEpoch::default();
        let stats = Arc::new(StatementMetrics::new());
        let pool = |connections| {
            DbPool::new(
                options.clone(),
                pooler,
                epoch.clone(),
                Arc::clone(&stats),
                connections,
            )
        };
        Ok(Self {
            pool: pool(max_connections),
            recorder: pool(1),
            monitoring: pool(MONITORING_CONNECTIONS),
            epoch,
            stats,
            options,
            pooler,
            clock: SharedClock::default(),
        })
    }

    /// Whether a pooler in transaction mode is in between: sessions keep nothing, and there is no LISTEN.
    pub(crate) fn has_pooler(&self) -> bool {
        self.pooler
    }

    /// When a statement was last answered, other than one of those who look on.
    pub(crate) fn last_response_at(&self) -> Option<Instant> {
        self.epoch.last_response_at()
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// A time of the database that is over, also if its clock was set ahead a moment ago.
    pub(super) fn over_before(&self) -> DbTime {
        let over_before = self.clock.over_before(Instant::now(), Duration::ZERO);
        over_before.unwrap_or(DbTime::INFINITY)
    }

    /// How to connect, for work that needs a connection of its own: migrations and LISTEN.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
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

/// The parameters of a URL that sqlx knows.
const KNOWN_PARAMETERS: &str = "sslmode ssl-mode sslrootcert ssl-root-cert ssl-ca sslcert ssl-cert sslkey ssl-key \
    statement-cache-capacity host hostaddr port dbname user password application_name";

/// Warns of unknown parameters of a URL, by their names. The library would log their values.
fn warn_of_unknown_parameters(url: &str) {
    for (key, _) in url_parameters(url) {
        let is_known = KNOWN_PARAMETERS.split(' ').any(|known| known == key);
        if is_known || key.is_empty() || key.starts_with("options") {
            continue;
        }
        let name = if sanitize::looks_like_setting_name(&key) {
            format!(": {key}")
        } else {
            String::new()
        };
        tracing::warn!(
            event = "database_parameter_ignored",
            "DATABASE_URL has a parameter that means nothing here{name}"
        );
    }
}

/// Two connections that are open at once have two servers, each its own throughout, unless a pooler lends servers out by
/// the transaction. Statements without parameters go as simple queries, which any pooler can pass on.
async fn has_transaction_pooler(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut connections = [options.connect().await?, options.connect().await?];
    let mut servers = [HashSet::new(), HashSet::new()];
    // Not in turn: a pooler that gives its servers out in turn would give each connection the same one every time.
    for index in [0, 1, 1, 0, 0, 1] {
        let row = connections[index]
            .fetch_one("select pg_backend_pid()")
            .await?;
        servers[index].insert(row.try_get::<i32, _>(0)?);
    }
    for connection in connections {
        connection.close().await?;
    }
    Ok(servers.iter().any(|pids| pids.len() > 1) || servers[0] == servers[1])
}
