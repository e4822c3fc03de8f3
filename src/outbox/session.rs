//! Connections to the database: bounded, and usable through a pooler in transaction mode.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres, Transaction};

use super::{SharedClock, explain};

/// What every session is told. The statements are written for indexes; a plan that was made while the table was
/// empty would read the whole table for as long as the plan is kept, which for a queue is until the next ANALYZE.
/// The costs that discouraged plans are given would make short statements compile with JIT. And a lock that a client
/// sits on must not tie up a connection for as long as it likes.
macro_rules! session_settings {
    ($set:literal) => {
        concat!(
            $set,
            " enable_seqscan = off; ",
            $set,
            " enable_bitmapscan = off; ",
            $set,
            " jit = off; ",
            $set,
            " lock_timeout = '2s'"
        )
    };
}

/// How long a statement may wait for a free connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database with the outbox, over a bounded number of connections.
#[derive(Debug)]
pub struct Outbox {
    pub(super) pool: PgPool,
    /// What is known of calls gets into the database whatever the lanes wait for.
    recorder: PgPool,
    options: PgConnectOptions,
    pooler: bool,
    clock: SharedClock,
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none. What is wrong with it is not said in its own words: it has a password in it.
    #[error(
        "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database"
    )]
    Url,
    /// The database does not answer, or does not let us in.
    #[error("the database at {host}:{port} can't be used: {}", explain(source))]
    Unreachable {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What it said, or the system.
        source: sqlx::Error,
    },
}

impl Outbox {
    /// Connects, and finds out whether a pooler in transaction mode is in between.
    ///
    /// # Errors
    /// Where the URL is wrong or the database can't be reached.
    pub async fn connect(url: &SecretString, max_connections: u32) -> Result<Self, ConnectError> {
        let url = url.expose_secret();
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(ConnectError::Url);
        }
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
        let pooler = has_transaction_pooler(&options)
            .await
            .map_err(unreachable)?;
        let pool_of = |connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // A connection that has died shows in the statement itself, which every caller repeats; asking before
                // each would add a round trip to every claim.
                .test_before_acquire(false)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        if !pooler {
                            connection.execute(session_settings!("set")).await?;
                        }
                        Ok(())
                    })
                })
                .connect_lazy_with(options.clone())
        };
        Ok(Self {
            pool: pool_of(max_connections),
            recorder: pool_of(1),
            options,
            pooler,
            clock: SharedClock::default(),
        })
    }

    /// Whether a pooler in transaction mode is in between: sessions keep nothing, and there is no LISTEN.
    pub fn has_pooler(&self) -> bool {
        self.pooler
    }

    /// This process's view of the database's clock.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// How to connect, for what needs a connection of its own: migrations and the doorbell.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// A session for one statement.
    pub(super) async fn session(&self) -> Result<Session, sqlx::Error> {
        self.session_of(&self.pool).await
    }

    /// A session that only the recorder uses.
    pub(super) async fn recorder_session(&self) -> Result<Session, sqlx::Error> {
        self.session_of(&self.recorder).await
    }

    async fn session_of(&self, pool: &PgPool) -> Result<Session, sqlx::Error> {
        if self.pooler {
            let begin = concat!("begin; ", session_settings!("set local"));
            Ok(Session::Pooled(pool.begin_with(begin).await?))
        } else {
            Ok(Session::Own(pool.acquire().await?))
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
        self.recorder.close().await;
    }
}

/// Where a statement runs: on a connection of our own, with prepared statements; or behind a pooler, in a
/// transaction and without them, because two messages of the protocol may else meet two different servers.
pub(super) enum Session {
    Own(PoolConnection<Postgres>),
    Pooled(Transaction<'static, Postgres>),
}

impl Session {
    /// Whether statements may be kept prepared.
    pub(super) fn keeps_statements(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Ends the session; only then what the statement did is done.
    pub(super) async fn finish(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Pooled(transaction) => transaction.commit().await,
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Pooled(transaction) => transaction,
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Pooled(transaction) => transaction,
        }
    }
}

/// Two connections that are open at once have two servers, each its own throughout, unless a pooler lends servers
/// out by the transaction. Statements without parameters go as simple queries, which any pooler can pass on.
async fn has_transaction_pooler(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let (mut one, mut other) = (options.connect().await?, options.connect().await?);
    let mut pids = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (connection, pids) in [&mut one, &mut other].into_iter().zip(&mut pids) {
            pids.push(backend_pid(connection).await?);
        }
    }
    one.close().await?;
    other.close().await?;
    let changed = pids
        .iter()
        .any(|pids| pids.iter().any(|pid| *pid != pids[0]));
    Ok(changed || pids[0][0] == pids[1][0])
}

async fn backend_pid(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use sqlx::Row;
    connection
        .fetch_one(sqlx::raw_sql("select pg_backend_pid()"))
        .await?
        .try_get(0)
}
