//! A small pool of database connections, and the two ways in which the worker calls a function.
//!
//! - **Deadlines.** Every wait has one, because a network that drops packets reports nothing: a statement would wait for a
//!   quarter of an hour or more. The server ends a statement soon after its deadline. Otherwise an abandoned statement would
//!   keep its locks and its connection.
//! - **Direct or pooled.** A direct connection is set up once and runs prepared statements. Behind a pooler in transaction
//!   mode, two messages may reach two servers. So each call is one message there: a transaction with its settings, and the
//!   arguments as literals.
//! - **Reuse.** A connection returns to the pool only after a complete response, so that no statement reads the response to
//!   another one. `connection_manager` decides whether it is used again.

mod call;
pub(super) mod connection_manager;
mod deadline;
pub(super) mod pooler;
pub(super) mod statement;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, QueueMode};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, PgConnection, Row};

pub(super) use call::Call;
pub(crate) use connection_manager::DEFAULT_MAX_AGE;
use connection_manager::{ConnectionManager, PoolEpoch, PooledConnection};
pub(crate) use deadline::{AdaptiveTimeout, Deadline};
use pooler::Pooler;
use statement::Statement;
pub(crate) use statement::{STATEMENT_DURATION, STATEMENT_ERRORS};

use crate::outbox::servers::CONNECT_TIMEOUT;
use crate::pace::DbTime;
use crate::pace::clock::{ClockReading, Moment};

/// Default deadline: thousands of times longer than a call needs, and short enough that a worker continues soon after the
/// network does.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A statement waits no longer for a lock. Otherwise a session that holds a lock would occupy the worker's connections.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings for plain statements; functions carry their own.
///
/// - A plan that Postgres makes while a table is empty reads the whole table later, unless it has to use the indexes.
/// - The high costs of discouraged plans would start JIT compilation.
/// - Functions that another role has created in the schema `public` must not match.
/// - Row-level security would silently hide rows. Now the statement fails.
const PLAIN_STATEMENTS: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off; \
    set local jit = off; set local search_path = pg_catalog, pg_temp; set local row_security = off";

pub(crate) struct DbPool {
    pool: Pool<ConnectionManager>,
    pooler: Option<Pooler>,
    epoch: Arc<PoolEpoch>,
}

impl DbPool {
    pub(super) fn new(manager: ConnectionManager, max_connections: u32) -> Self {
        let (pooler, epoch) = (manager.pooler, Arc::clone(&manager.epoch));
        let pool = Pool::builder(manager)
            .max_size(usize::try_from(max_connections).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            // The manager has a timeout for each host.
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .build();
        Self {
            pool: pool.expect("a pool with a runtime can be built"),
            pooler,
            epoch,
        }
    }

    /// Calls a function of the schema within the default deadline.
    ///
    /// # Errors
    /// If the call fails, or has no response in time. The server may have carried it out all the same.
    pub(crate) async fn call(
        &self,
        statement: Statement,
        call: Call<'_>,
    ) -> Result<Answer, sqlx::Error> {
        let deadline = Deadline::of_client(STATEMENT_TIMEOUT);
        self.call_within(statement, deadline, call).await
    }

    /// As [`call`](Self::call), with another deadline.
    pub(crate) async fn call_within(
        &self,
        statement: Statement,
        deadline: Deadline,
        call: Call<'_>,
    ) -> Result<Answer, sqlx::Error> {
        let begun = Instant::now();
        // Boxed, because every task that awaits a call would otherwise reserve many kilobytes for it.
        let result = Box::pin(async {
            let mut pooled = self.connection().await?;
            within(
                deadline.client,
                self.send(&mut pooled, deadline.server, call),
            )
            .await
        });
        let result = result.await;
        statement.observe(begun, &result);
        self.epoch.observe(deadline.client, &result);
        result
    }

    async fn connection(&self) -> Result<Object<ConnectionManager>, sqlx::Error> {
        let mut pooled = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            PoolError::Timeout(_)
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_) => sqlx::Error::PoolTimedOut,
        })?;
        pooled.in_use = true;
        Ok(pooled)
    }

    async fn send(
        &self,
        pooled: &mut PooledConnection,
        timeout: Duration,
        call: Call<'_>,
    ) -> Result<Answer, sqlx::Error> {
        let connection = &mut pooled.connection;
        if self.pooler.is_none() && pooled.statement_timeout != timeout {
            let set = format!("set statement_timeout = {}", timeout.as_millis());
            connection.execute(AssertSqlSafe(set)).await?;
            pooled.statement_timeout = timeout;
        }
        let asked = Moment::now();
        let rows = if self.pooler.is_some() {
            let message = format!("{}; {}; commit", self.begin(timeout), call.literal());
            let rows = sqlx::raw_sql(AssertSqlSafe(message));
            let rows = rows.fetch_all(&mut *connection).await;
            if rows.is_err() {
                // The failed transaction is still open.
                connection.execute("rollback").await?;
            }
            rows
        } else {
            let (text, arguments) = call.prepared();
            let rows = sqlx::query_with(AssertSqlSafe(text), arguments);
            rows.fetch_all(connection).await
        };
        pooled.in_use = !matches!(rows, Ok(_) | Err(sqlx::Error::Database(_)));
        Ok(Answer {
            rows: rows?,
            asked,
            answered: Instant::now(),
        })
    }

    fn begin(&self, statement_timeout: Duration) -> String {
        format!(
            "begin isolation level read committed; set local statement_timeout = {}; set local lock_timeout = {}{}",
            statement_timeout.as_millis(),
            LOCK_TIMEOUT.as_millis(),
            self.pooler.map_or("", |pooler| pooler.guard)
        )
    }

    /// Begins a transaction of plain statements. The server ends a statement at the deadline; without one, never.
    pub(crate) async fn transaction(
        &self,
        deadline: Option<Duration>,
    ) -> Result<Session, sqlx::Error> {
        let mut session = Session(self.connection().await?);
        let begin = self.begin(deadline.unwrap_or_default());
        let begin = AssertSqlSafe(format!("{begin}; {PLAIN_STATEMENTS}"));
        within(CONNECT_TIMEOUT, session.execute(begin)).await?;
        Ok(session)
    }

    /// Closes all idle connections, and lets none be made again.
    pub(crate) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for pooled in idle {
            let close = pooled.connection.close();
            within(CLOSE_TIMEOUT, close).await.ok();
        }
    }
}

/// Waits for the database until the deadline, and then fails with [`io::ErrorKind::TimedOut`].
pub(crate) async fn within<T>(
    deadline: Duration,
    response: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let response = tokio::time::timeout(deadline, response).await;
    response.unwrap_or_else(|_| {
        let why = format!("no answer within {}", humantime::format_duration(deadline));
        Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
    })
}

pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// The rows of a call, and the times of its request and its response.
pub(crate) struct Answer {
    pub(crate) rows: Vec<PgRow>,
    pub(crate) asked: Moment,
    pub(crate) answered: Instant,
}

impl Answer {
    /// A reading of the database's clock, which showed `at` during the call.
    pub(crate) fn clock_reading(&self, at: DbTime) -> ClockReading {
        ClockReading {
            asked: self.asked,
            answered: self.answered,
            shown: at,
        }
    }

    /// The first value of the first row. None if there is no row, or the value is null.
    pub(crate) fn value<T>(&self) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let first = self.rows.first();
        first.map_or(Ok(None), |row| row.try_get(0))
    }

    pub(crate) fn decode<T: for<'r> FromRow<'r, PgRow>>(&self) -> Result<Vec<T>, sqlx::Error> {
        self.rows.iter().map(T::from_row).collect()
    }
}

/// A transaction of plain statements. Without [`finish`](Self::finish), the pool drops its connection, and Postgres rolls
/// it back.
pub(crate) struct Session(Object<ConnectionManager>);

impl Session {
    /// Commits the transaction.
    pub(crate) async fn finish(&mut self) -> Result<(), sqlx::Error> {
        self.execute("commit").await?;
        self.0.in_use = false;
        Ok(())
    }
}

impl Deref for Session {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }
}
