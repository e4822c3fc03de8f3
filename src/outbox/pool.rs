//! A small pool of database connections, and the two ways in which the worker calls a function.
//!
//! - **Timeouts.** Every call of the protocol has a timeout. Without one, a statement would wait for a quarter of an hour or more in a
//!   network that drops packets. The server ends a statement soon after its timeout. Otherwise an abandoned statement would
//!   keep its locks and its connection.
//! - **Direct or pooled.** A direct connection is set up once and runs prepared statements. Behind a pooler in transaction
//!   mode, two messages may reach two server processes. So each call is one message there: a transaction with its settings, and
//!   the arguments as literals.
//! - **Reuse.** A connection returns to the pool only after a complete response, so that no statement reads the response to
//!   another one. `connection_manager` decides whether it is used again.

mod call;
pub(super) mod connection_manager;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, QueueMode};
use metrics::{counter, histogram};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, PgConnection, Row};

pub(super) use call::Call;
pub(crate) use connection_manager::DEFAULT_MAX_AGE;
use connection_manager::{ConnectionManager, PooledConnection};

use crate::outbox::servers::CONNECT_TIMEOUT;
use crate::pace::DbTime;
use crate::pace::clock::{ClockReading, Moment};

/// Histogram of durations in seconds, including the wait for a connection. The label `statement` is a function of the schema,
/// or `read` or `admin` for other statements.
pub(crate) const STATEMENT_DURATION: &str = "signaling_database_statement_duration_seconds";
/// Counter of failed statements, with the same label.
pub(crate) const STATEMENT_ERRORS: &str = "signaling_database_errors_total";

/// Default timeout: thousands of times longer than a call needs, and short enough that a worker continues soon after the
/// network does.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// The server ends a statement this long after the worker's timeout.
pub(super) const SERVER_GRACE: Duration = Duration::from_millis(500);
/// After the server's timeout, the worker waits this long for the response of a function that catches the timeout.
const FUNCTION_GRACE: Duration = Duration::from_secs(3);
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait for a lock. Without it, a session that holds a lock would occupy all of the worker's connections.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings for plain statements; functions carry their own.
///
/// - A plan that Postgres makes while a table is empty reads the whole table later, unless it has to use the indexes.
/// - The high costs of discouraged plans would start JIT compilation.
/// - A function that another role has created in the schema `public` would run with this role's privileges.
/// - Row-level security would silently hide rows. With `row_security = off`, the statement fails.
const PLAIN_STATEMENTS: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off; \
    set local jit = off; set local search_path = pg_catalog, pg_temp; set local row_security = off";

pub(crate) struct DbPool(Pool<ConnectionManager>);

impl DbPool {
    pub(super) fn new(manager: ConnectionManager, max_connections: u32) -> Self {
        let pool = Pool::builder(manager)
            .max_size(usize::try_from(max_connections).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            // The manager has a timeout for each host.
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .build();
        Self(pool.expect("a pool with a runtime can be built"))
    }

    pub(super) fn manager(&self) -> &ConnectionManager {
        self.0.manager()
    }

    /// Calls a function of the schema within the default timeout.
    ///
    /// Fails if the call fails or gets no response in time. The server may have carried the call out in both cases.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, sqlx::Error> {
        let server = STATEMENT_TIMEOUT + SERVER_GRACE;
        self.call_within(STATEMENT_TIMEOUT, server, call).await
    }

    /// Calls a function within a timeout that adapts to a slow database. With `one_by_one`, the server times out first: a
    /// function that changes one message at a time learns from the timeout which message is slow.
    pub(crate) async fn call_adaptively(
        &self,
        timeout: &AdaptiveTimeout,
        one_by_one: bool,
        call: Call,
    ) -> Result<Answer, sqlx::Error> {
        let (client, server) = timeout.client_and_server(one_by_one);
        let answer = self.call_within(client, server, call).await;
        timeout.observe(&answer);
        answer
    }

    pub(super) async fn call_within(
        &self,
        client: Duration,
        server: Duration,
        call: Call,
    ) -> Result<Answer, sqlx::Error> {
        let begun = Instant::now();
        let label = call.function;
        // Boxed, because every task that awaits a call would otherwise reserve many kilobytes for it.
        let result = Box::pin(async {
            let mut pooled = self.connection().await?;
            within(client, self.send(&mut pooled, server, call)).await
        });
        let result = result.await;
        measure(label, begun, &result);
        self.manager().epoch.observe(client, &result);
        result
    }

    async fn connection(&self) -> Result<Object<ConnectionManager>, sqlx::Error> {
        let mut pooled = self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            _ => sqlx::Error::PoolTimedOut,
        })?;
        pooled.in_use = true;
        Ok(pooled)
    }

    async fn send(
        &self,
        pooled: &mut PooledConnection,
        timeout: Duration,
        call: Call,
    ) -> Result<Answer, sqlx::Error> {
        let has_pooler = self.manager().pooler.is_some();
        let connection = &mut pooled.connection;
        if !has_pooler && pooled.statement_timeout != timeout {
            let set = format!("set statement_timeout = {}", timeout.as_millis());
            connection.execute(AssertSqlSafe(set)).await?;
            pooled.statement_timeout = timeout;
        }
        let asked = Moment::now();
        let rows = if has_pooler {
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
            self.manager().pooler.unwrap_or_default()
        )
    }

    /// Runs plain statements in a transaction, and commits. The server ends a statement at the timeout; None sets no timeout.
    /// After an error, the pool drops the connection, and Postgres rolls the transaction back.
    pub(crate) async fn transaction<T, E: From<sqlx::Error>>(
        &self,
        statement_timeout: Option<Duration>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pooled = self.connection().await?;
        let connection = &mut pooled.connection;
        let begin = self.begin(statement_timeout.unwrap_or_default());
        let begin = AssertSqlSafe(format!("{begin}; {PLAIN_STATEMENTS}"));
        within(CONNECT_TIMEOUT, connection.execute(begin)).await?;
        let value = work(connection).await?;
        connection.execute("commit").await?;
        pooled.in_use = false;
        Ok(value)
    }

    /// Closes all idle connections. The pool makes no new one.
    pub(crate) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for pooled in idle {
            let close = pooled.connection.close();
            within(CLOSE_TIMEOUT, close).await.ok();
        }
    }
}

/// A timeout that doubles after each statement that misses it. With a fixed timeout, no statement would finish in a slow
/// database.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveTimeout(AtomicU32);

impl AdaptiveTimeout {
    const MAX_DOUBLINGS: u32 = 3;
    /// The server's shortest timeout for a function that changes one message at a time. Longer than the wait for a lock, and
    /// than the second after which `signaling.is_slow` counts a message as slow.
    const MIN_ISOLATING: Duration = Duration::from_secs(4);

    /// The worker's timeout for the next statement, and the server's.
    pub(super) fn client_and_server(&self, one_by_one: bool) -> (Duration, Duration) {
        let doublings = self.0.load(Ordering::Relaxed).min(Self::MAX_DOUBLINGS);
        let timeout = STATEMENT_TIMEOUT * 2_u32.pow(doublings);
        if one_by_one {
            let server = (timeout / 4).max(Self::MIN_ISOLATING);
            return (server + FUNCTION_GRACE, server);
        }
        (timeout, timeout + SERVER_GRACE)
    }

    pub(super) fn observe<T>(&self, result: &Result<T, sqlx::Error>) {
        match result {
            Ok(_) => self.0.store(0, Ordering::Relaxed),
            Err(error) if is_timeout(error) => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}

/// Waits for the database until the timeout, and then fails with [`io::ErrorKind::TimedOut`].
pub(crate) async fn within<T>(
    timeout: Duration,
    response: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let response = tokio::time::timeout(timeout, response).await;
    response.unwrap_or_else(|_| {
        let why = format!("no answer within {}", humantime::format_duration(timeout));
        Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
    })
}

pub(super) fn measure<T>(label: &'static str, begun: Instant, result: &Result<T, sqlx::Error>) {
    // Adds zero after a success, so that the counter exists before the first error.
    counter!(STATEMENT_ERRORS, "statement" => label).increment(result.is_err().into());
    if result.is_ok() {
        histogram!(STATEMENT_DURATION, "statement" => label).record(begun.elapsed());
    }
}

pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

pub(crate) struct Answer {
    pub(crate) rows: Vec<PgRow>,
    pub(crate) asked: Moment,
    pub(crate) answered: Instant,
}

impl Answer {
    /// Pairs `at`, the time of the database's clock during the call, with the times of this host.
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
