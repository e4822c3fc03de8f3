//! A pool of database connections. Every wait has a deadline, because a network that drops packets reports nothing: a
//! statement would wait for a quarter of an hour or more.

mod adaptive_timeout;
mod call;
mod connection_manager;
mod epoch;
pub(super) mod statement;

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, QueueMode};
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, FromRow, PgConnection, Row};

pub(crate) use adaptive_timeout::AdaptiveTimeout;
pub(super) use call::Call;
pub(super) use connection_manager::ConnectionManager;
pub(crate) use connection_manager::DEFAULT_MAX_AGE;
pub(super) use epoch::PoolEpoch;
pub(crate) use statement::{STATEMENT_DURATION, STATEMENT_ERRORS};

use crate::outbox::errors::is_connection_error;
use crate::outbox::pool::statement::{Statement, StatementMetrics};
use crate::outbox::servers::CONNECT_TIMEOUT;
use crate::pace::DbTime;
use crate::pace::clock::{ClockReading, Moment};

/// How long a statement of the hot path may take: thousands of times what it needs, and short enough that a worker
/// goes on soon after the network does.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long it may take to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long after the worker's own timeout the server ends a statement. Without this, an abandoned statement would keep its
/// locks and its connection. The worker times out first, so that it sees its own error.
const SERVER_GRACE: Duration = Duration::from_millis(500);
/// How long after the server's timeout the worker waits for the response of a function that catches it.
const FUNCTION_GRACE: Duration = Duration::from_secs(3);

/// How long a statement may take, for the worker and for the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The worker waits so long for the response.
    client: Duration,
    /// The server works on the statement so long (`statement_timeout`).
    server: Duration,
}

impl Deadline {
    /// The worker times out first, so that it sees its own error. The server ends the statement soon after.
    pub(super) const fn of_client(client: Duration) -> Self {
        let server = client.saturating_add(SERVER_GRACE);
        Self { client, server }
    }

    /// The server ends the statement first. A function of the schema learns from that which message keeps it waiting, and
    /// the worker waits for its response.
    pub(super) const fn of_server(server: Duration) -> Self {
        let client = server.saturating_add(FUNCTION_GRACE);
        Self { client, server }
    }
}

/// How long a statement waits for a lock, so that a session that sits on one does not tie up a connection.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The start of a transaction that is made of plain statements: for indexes, because a plan that is made while a table
/// is empty reads the whole table later; without JIT, which the costs of discouraged plans would start; and with the
/// names of the system alone, because others may create functions in the schema `public` that fit better.
const BEGIN: &str = "begin isolation level read committed; set local enable_seqscan = off; \
    set local enable_bitmapscan = off; set local jit = off; set local search_path = pg_catalog, pg_temp";

/// A pooler in transaction mode: each transaction is one message with all its settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooler {
    /// The servers accept `client_connection_check_interval`, see [`SESSION_GUARDS`](super::servers::SESSION_GUARDS).
    pub(super) checks_clients: bool,
}

impl Pooler {
    /// Has Postgres end a statement soon after the pooler has closed the connection, as sessions of their own do.
    fn guard(self) -> &'static str {
        if self.checks_clients {
            "; set local client_connection_check_interval = 1000"
        } else {
            ""
        }
    }
}

/// Connections that are made when they are needed, and kept.
pub(crate) struct DbPool {
    pool: Pool<ConnectionManager>,
    pooler: Option<Pooler>,
    epoch: PoolEpoch,
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
    /// A pool of so many connections at most; none is made yet.
    pub(super) fn new(
        manager: ConnectionManager,
        stats: Arc<StatementMetrics>,
        max_connections: u32,
    ) -> Self {
        let (pooler, epoch) = (manager.pooler, manager.epoch.clone());
        let pool = Pool::builder(manager)
            .max_size(usize::try_from(max_connections).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            // The manager has a timeout for each host.
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .build();
        Self {
            pool: pool.expect("a runtime is given, which is all that is checked"),
            pooler,
            epoch,
            stats,
        }
    }

    /// Calls a function of the schema, within the usual deadline. The rows come as they are, with how the call went in
    /// time.
    ///
    /// # Errors
    /// Where the call fails, or there is no answer in time. Then it may have been carried out all the same.
    pub(crate) async fn call(
        &self,
        statement: Statement,
        call: Call<'_>,
    ) -> Result<Answer, sqlx::Error> {
        self.call_within(statement, Deadline::of_client(STATEMENT_TIMEOUT), call)
            .await
    }

    /// The same with a deadline.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub(crate) async fn call_within(
        &self,
        statement: Statement,
        deadline: Deadline,
        call: Call<'_>,
    ) -> Result<Answer, sqlx::Error> {
        self.run_within(statement, deadline, async |session| {
            session.call(call, deadline).await
        })
        .await
    }

    /// Runs statements of the hot path. When they fail because of the server or the network, no connection is used
    /// again. A statement that takes too long while others are answered is only slow.
    ///
    /// # Errors
    /// Where a statement fails, or there is no answer in time. Then it may have been carried out all the same.
    pub(crate) async fn run_within<T>(
        &self,
        statement: Statement,
        deadline: Deadline,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        // The state of a statement takes many kilobytes: it is in the heap, and not in every task that runs one.
        let begun = Instant::now();
        let result = Box::pin(self.try_run(deadline, work)).await;
        self.stats.observe(statement, begun, &result);
        match &result {
            Ok(_) => self.epoch.note_response(),
            Err(error) if is_timeout(error) && self.epoch.responded_within(deadline.client / 2) => {
            }
            Err(error) if is_connection_error(error) => {
                self.epoch.advance();
                self.pool.retain(|_, _| false);
            }
            Err(_) => {}
        }
        result
    }

    async fn try_run<T>(
        &self,
        deadline: Deadline,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        // Connecting has a deadline of its own.
        let mut session = self.session().await?;
        within(deadline.client, async {
            session.limit(deadline).await?;
            let value = work(&mut session).await?;
            session.finish().await?;
            Ok(value)
        })
        .await
    }

    async fn session(&self) -> Result<Session, sqlx::Error> {
        let mut session = Session {
            link: self.pool.get().await.map_err(pool_error)?,
            pooler: self.pooler,
            in_transaction: false,
        };
        session.link.in_use = true;
        Ok(session)
    }

    /// A session with a transaction of plain statements, on which the server works for as long as `deadline` allows;
    /// without one, for as long as it takes.
    pub(crate) async fn transaction(
        &self,
        deadline: Option<Duration>,
    ) -> Result<Session, sqlx::Error> {
        let mut session = self.session().await?;
        let timeout_ms = deadline.map_or(0, |deadline| deadline.as_millis());
        let lock_timeout_ms = LOCK_TIMEOUT.as_millis();
        // Without this, a row-level security policy would silently empty the dashboard. Now the statement fails.
        let begin = format!(
            "{BEGIN}; set local statement_timeout = {timeout_ms}; set local lock_timeout = {lock_timeout_ms}; set local row_security = off{}",
            self.pooler.map_or("", Pooler::guard)
        );
        within(CONNECT_TIMEOUT, session.execute(sqlx::AssertSqlSafe(begin))).await?;
        session.in_transaction = true;
        Ok(session)
    }

    /// Closes all connections.
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

/// True if there was no response in time.
pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

fn pool_error(error: PoolError<sqlx::Error>) -> sqlx::Error {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Closed => sqlx::Error::PoolClosed,
        // The pool has a timeout for the wait alone, a runtime, and no hooks.
        PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            sqlx::Error::PoolTimedOut
        }
    }
}

/// The result of a call, and when it was asked for and answered.
pub(crate) struct Answer {
    pub(crate) rows: Vec<PgRow>,
    pub(crate) asked: Moment,
    pub(crate) answered: Moment,
}

impl Answer {
    /// The reading of the database's clock that came with the answer: it showed `at`.
    pub(crate) fn clock_reading(&self, at: DbTime) -> ClockReading {
        ClockReading {
            asked: self.asked,
            answered: self.answered,
            shown: at,
        }
    }

    /// The single value of the first row; none if there is no row, or it is null.
    ///
    /// # Errors
    /// Where the value is of another type.
    pub(crate) fn value<T>(&self) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.rows
            .first()
            .map_or(Ok(None), |row| row.try_get::<Option<T>, _>(0))
    }

    /// All rows, decoded.
    ///
    /// # Errors
    /// Where a row has other columns.
    pub(crate) fn decode<T: for<'r> FromRow<'r, PgRow>>(&self) -> Result<Vec<T>, sqlx::Error> {
        self.rows.iter().map(T::from_row).collect()
    }
}

/// A connection in use. A session that is not finished takes its connection with it.
pub(crate) struct Session {
    link: Object<ConnectionManager>,
    pooler: Option<Pooler>,
    in_transaction: bool,
}

impl Session {
    /// Calls a function in a transaction of its own: as a prepared statement, or behind a pooler in one message, because
    /// two messages may meet two different servers there.
    async fn call(&mut self, call: Call<'_>, deadline: Deadline) -> Result<Answer, sqlx::Error> {
        let asked = Moment::now();
        let rows = if let Some(pooler) = self.pooler {
            let transaction = format!(
                "begin isolation level read committed; set local statement_timeout = {}; set local lock_timeout = {}{}; {}; commit",
                deadline.server.as_millis(),
                LOCK_TIMEOUT.as_millis(),
                pooler.guard(),
                call.literal(),
            );
            let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(transaction))
                .fetch_all(&mut self.link.connection)
                .await;
            if rows.is_err() {
                // The server has stopped within the transaction. If this fails, too, the connection is given up.
                self.execute("rollback").await?;
                self.link.in_use = false;
            }
            rows?
        } else {
            let (text, arguments) = call.prepared();
            let rows = sqlx::query_with(sqlx::AssertSqlSafe(text), arguments)
                .fetch_all(&mut self.link.connection)
                .await;
            if matches!(rows, Err(sqlx::Error::Database(_))) {
                self.link.in_use = false;
            }
            rows?
        };
        Ok(Answer {
            rows,
            asked,
            answered: Moment::now(),
        })
    }

    /// Makes the server end statements at its deadline. Behind a pooler, each call carries the timeout itself.
    async fn limit(&mut self, deadline: Deadline) -> Result<(), sqlx::Error> {
        let timeout = deadline.server;
        if self.pooler.is_some() || self.link.statement_timeout == timeout {
            return Ok(());
        }
        let set = format!("set statement_timeout = {}", timeout.as_millis());
        self.execute(sqlx::AssertSqlSafe(set)).await?;
        self.link.statement_timeout = timeout;
        Ok(())
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
