//! A pool of connections to the database: a few connections that are used again, and no wait without an end. A network that swallows
//! packets answers nothing and reports nothing; what waits for it would wait for a quarter of an hour or more.

mod adaptive_timeout;
mod epoch;
pub(super) mod statement;
mod tls_files;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};

pub(crate) use adaptive_timeout::AdaptiveTimeout;
pub(super) use epoch::PoolEpoch;
pub(crate) use statement::{STATEMENT_DURATION, STATEMENT_ERRORS};
pub(crate) use tls_files::{TlsFileError, check_tls_files};

use crate::outbox::errors::is_connection_error;
use crate::outbox::pool::statement::{Statement, StatementMetrics};

/// What every session is told. The statements are written for indexes; a plan that was made while the table was
/// empty would read the whole table for as long as the plan is kept, which for a queue is until the next ANALYZE.
/// The costs that discouraged plans are given would make short statements compile with JIT. And a lock that a client
/// sits on must not tie up a connection for as long as it likes. Functions and operators are those of the system:
/// anybody may have rights to create others in the schema `public`, which fit an argument's type better.
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
            " lock_timeout = '2s'; ",
            $set,
            " search_path = pg_catalog, pg_temp"
        )
    };
}

/// How long a connection may take to be made, and how long a statement may wait for one to be free.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a statement of the hot path may take: thousands of times what it needs, and short enough that a worker
/// goes on soon after the network does.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a farewell to the server may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How the statements of a line are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanCache {
    /// As Postgres sees fit: each time anew for as long as it thinks that this pays.
    Auto,
    /// Once for a connection. Of the record it never sees, and of the claim not always, that the plan is the same each
    /// time: to plan them took half a millisecond and a whole one, as long as a small one takes for the work.
    Generic,
}

/// Connections that are made when they are needed, and kept.
pub(crate) struct DbPool {
    pool: Pool<ConnectionManager>,
    pooler: bool,
    breaks: PoolEpoch,
    stats: Arc<StatementMetrics>,
}

impl std::fmt::Debug for DbPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DbPool")
            .field("pool", &self.pool.status())
            .field("pooler", &self.pooler)
            .finish_non_exhaustive()
    }
}

impl DbPool {
    /// A line of so many connections at most; none is made yet.
    pub(crate) fn new(
        options: PgConnectOptions,
        pooler: bool,
        breaks: PoolEpoch,
        stats: Arc<StatementMetrics>,
        max_connections: u32,
        plans: PlanCache,
    ) -> Self {
        let connector = ConnectionManager {
            options,
            pooler,
            breaks: breaks.clone(),
            plans,
        };
        let pool = Pool::builder(connector)
            .max_size(usize::try_from(max_connections).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build();
        Self {
            pool: pool.expect("a runtime is given, which is all that is checked"),
            pooler,
            breaks,
            stats,
        }
    }

    /// Runs statements of the hot path, within the usual deadline.
    ///
    /// # Errors
    /// Where a statement fails, or there is no answer in time. Then it may have been carried out all the same.
    pub(crate) async fn run<T>(
        &self,
        statement: Statement,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.run_within(statement, STATEMENT_TIMEOUT, work).await
    }

    /// Runs statements of the hot path. When they fail because of the server or the network, no connection is used
    /// again. A statement that takes too long while others are answered is only slow.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub(crate) async fn run_within<T>(
        &self,
        statement: Statement,
        deadline: Duration,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        // What waits for a statement is many kilobytes: it stands in the heap, not in every task that asks.
        let begun = Instant::now();
        let result = Box::pin(self.try_run(deadline, work)).await;
        self.stats.observe(statement, begun, &result);
        match &result {
            Ok(_) => self.breaks.note_response(),
            Err(error) if is_timeout(error) && self.breaks.responded_within(deadline / 2) => {}
            Err(error) if is_connection_error(error) => {
                self.breaks.advance();
                self.pool.retain(|_, _| false);
            }
            Err(_) => {}
        }
        result
    }

    async fn try_run<T>(
        &self,
        deadline: Duration,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        // Connecting has a deadline of its own.
        let mut session = self.session().await?;
        within(deadline, async {
            let value = work(&mut session).await?;
            session.finish().await?;
            Ok(value)
        })
        .await
    }

    /// A session without a deadline.
    pub(crate) async fn session(&self) -> Result<Session, sqlx::Error> {
        let mut session = Session {
            link: self.pool.get().await.map_err(pool_error)?,
            in_transaction: self.pooler,
        };
        session.link.in_use = true;
        if self.pooler {
            let begin = concat!("begin; ", session_settings!("set local"));
            within(CONNECT_TIMEOUT, session.execute(begin)).await?;
        }
        Ok(session)
    }

    /// A session with a transaction, for what is seldom done: its plans are made for it.
    pub(crate) async fn transaction(&self) -> Result<Session, sqlx::Error> {
        let mut session = self.session().await?;
        if !session.in_transaction {
            session
                .execute("begin; set local plan_cache_mode = auto")
                .await?;
            session.in_transaction = true;
        }
        Ok(session)
    }

    /// Takes leave of the server.
    pub(crate) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for link in idle {
            within(CLOSE_TIMEOUT, link.connection.close()).await.ok();
        }
    }
}

/// Waits for the database, but not for longer than that.
///
/// # Errors
/// Those of `asked`, and [`io::ErrorKind::TimedOut`].
pub(crate) async fn within<T>(
    deadline: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let Ok(answer) = tokio::time::timeout(deadline, asked).await else {
        let why = format!("no answer within {}", humantime::format_duration(deadline));
        return Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            why,
        )));
    };
    answer
}

fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

fn pool_error(error: PoolError<sqlx::Error>) -> sqlx::Error {
    use deadpool::managed::TimeoutType;
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(TimeoutType::Wait) => sqlx::Error::PoolTimedOut,
        PoolError::Closed => sqlx::Error::PoolClosed,
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
        | PoolError::NoRuntimeSpecified
        // No timeout of a statement: it says nothing of how slow the database is, and is no reason to wait longer.
        | PoolError::PostCreateHook(_) => sqlx::Error::Io(io::Error::new(
            io::ErrorKind::HostUnreachable,
            format!("no connection within {}", humantime::format_duration(CONNECT_TIMEOUT)),
        )),
    }
}

struct ConnectionManager {
    options: PgConnectOptions,
    pooler: bool,
    breaks: PoolEpoch,
    plans: PlanCache,
}

/// A connection, and what tells whether it can be used again.
struct PooledConnection {
    connection: PgConnection,
    /// It is in the middle of something.
    in_use: bool,
    /// The count of breaks when it was made.
    breaks: u64,
}

impl Manager for ConnectionManager {
    type Type = PooledConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PooledConnection, sqlx::Error> {
        let breaks = self.breaks.count();
        let mut connection = Box::pin(self.options.connect()).await?;
        if !self.pooler {
            connection.execute(session_settings!("set")).await?;
            if self.plans == PlanCache::Generic {
                connection
                    .execute("set plan_cache_mode = force_generic_plan")
                    .await?;
            }
        }
        Ok(PooledConnection {
            connection,
            in_use: false,
            breaks,
        })
    }

    /// A connection is as good as it was left; one that has died meanwhile shows in the statement itself, which every
    /// caller repeats. Asking before each would add a round trip to every claim.
    async fn recycle(
        &self,
        link: &mut PooledConnection,
        _: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        if link.in_use || link.breaks != self.breaks.count() {
            return Err(RecycleError::message("not to be trusted"));
        }
        Ok(())
    }
}

/// Where a statement runs: on a connection of our own, with prepared statements; or behind a pooler, in a transaction
/// and without them, because two messages of the protocol may else meet two different servers. A session that is not
/// finished takes its connection with it.
pub(crate) struct Session {
    link: Object<ConnectionManager>,
    in_transaction: bool,
}

impl Session {
    /// Whether statements may be kept prepared.
    pub(crate) fn caches_statements(&self) -> bool {
        !self.in_transaction
    }

    /// Ends the session; only then what the statements did is done.
    pub(crate) async fn finish(&mut self) -> Result<(), sqlx::Error> {
        if self.in_transaction {
            self.execute("commit").await?;
        }
        self.link.in_use = false;
        Ok(())
    }
}

impl Deref for Session {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.link.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.link.connection
    }
}
