//! A hand-written send loop, with which the benchmark compares the worker. Each of 64 tasks claims one row, sends it,
//! and records the result. The tasks share 16 connections, and hold one only while a statement runs.
//!
//! The loop is what a careful person writes without a worker: prepared statements, `for update skip locked`, an index
//! for each query. It keeps no limit, does not retry, and takes no lease, so a killed loop leaves rows behind as
//! `sending`. A lease would cost it more. The loop stays as it is from release to release, so that its figures can be
//! compared with older ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Messages in flight at once.
const TASKS: usize = 64;
/// Connections that the tasks share. More of them contend for the same rows.
const CONNECTIONS: usize = 16;
/// Average pause of a task that has found no message.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The columns and storage settings of `signaling.outbox`, without its constraints, triggers and the indexes that the
/// loop does not need.
pub(crate) const SCHEMA: &str = "
    create schema hand_written;
    create table hand_written.outbox (
        id                          bigint generated always as identity primary key,
        app                         text        not null default 'default',
        sender                      text        not null,
        destination                 text,
        channel_name                text,
        payload                     text        not null,
        wait_for_ack                boolean     not null default false,
        enable_offline_messaging    boolean     not null default false,
        enable_historical_messaging boolean     not null default false,
        due_at                      timestamptz not null default now(),
        expires_at                  timestamptz,
        max_attempts                integer     not null default 10,
        at_most_once                boolean     not null default false,
        dedupe_key                  text,
        traceparent                 text,
        created_at                  timestamptz not null default now(),

        status                      text        not null default 'pending',
        attempts                    integer     not null default 0,
        claim_id                    uuid,
        claimed_by                  text,
        sent_at                     timestamptz,
        finished_at                 timestamptz,
        http_status                 integer,
        request_id                  text,
        error                       text
    )
    with (fillfactor = 70,
          autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
          autovacuum_analyze_scale_factor = 0.05);
    create index outbox_pending on hand_written.outbox (app, due_at, id) where status = 'pending';
    create unique index outbox_dedupe on hand_written.outbox (app, dedupe_key) where dedupe_key is not null;
";

const CLAIM: &str = "
    update hand_written.outbox
    set status = 'sending', attempts = attempts + 1, sent_at = clock_timestamp()
    where id = (select id from hand_written.outbox
                where app = 'default' and status = 'pending' and due_at <= now()
                order by due_at, id limit 1 for update skip locked)
    returning id, sender, destination, payload";

const RECORD: &str = "
    update hand_written.outbox
    set status = $2, finished_at = clock_timestamp(), http_status = $3, request_id = $4
    where id = $1";

type Api = Client<HttpConnector, Full<Bytes>>;

/// Sends messages until `shutdown`.
///
/// # Errors
/// If the database or the API fails.
pub(crate) async fn run(
    database_url: &str,
    api_url: &str,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pool = Arc::new(Pool::connect(database_url).await?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let api: Api = Client::builder(TokioExecutor::new()).build(connector);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (pool, api, api_url) = (Arc::clone(&pool), api.clone(), api_url.to_owned());
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            while !shutdown.is_cancelled() {
                if !send_one(&pool, &api, &api_url).await? {
                    // Random pauses spread the tasks, so that some task polls every few milliseconds.
                    let pause = POLL_INTERVAL.mul_f64(rand::random_range(0.5..1.5));
                    shutdown
                        .run_until_cancelled(tokio::time::sleep(pause))
                        .await;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Claims a message and sends it. Returns false if there is no message.
async fn send_one(pool: &Pool, api: &Api, api_url: &str) -> anyhow::Result<bool> {
    let mut borrowed = pool.borrow().await?;
    let claimed: Option<(i64, String, String, String)> = sqlx::query_as(CLAIM)
        .fetch_optional(borrowed.connection()?)
        .await?;
    drop(borrowed);
    let Some((id, sender, destination, payload)) = claimed else {
        return Ok(false);
    };
    let body = serde_json::json!({
        "destination": destination,
        "enable_offline_messaging": false,
        "enable_historical_messaging": false,
        "payload": payload,
    });
    let request = Request::post(format!(
        "{api_url}/dev/v2/project/bench/rtm/users/{sender}/peer_messages?wait_for_ack=false"
    ))
    .header("content-type", "application/json;charset=utf-8")
    .body(Full::from(body.to_string()))?;
    let response = api
        .request(request)
        .await
        .context("the API can't be called")?;
    let http_status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body)?;
    let status = if http_status.is_success() {
        body["code"].as_str().unwrap_or("unknown")
    } else {
        "failed"
    };
    sqlx::query(RECORD)
        .bind(id)
        .bind(status)
        .bind(i32::from(http_status.as_u16()))
        .bind(body["request_id"].as_str())
        .execute(pool.borrow().await?.connection()?)
        .await?;
    Ok(true)
}

/// Connections that the tasks borrow for one statement at a time. The pool of sqlx would send a ping each time it takes
/// a connection back, which no setting prevents: one more round trip for each statement.
struct Pool {
    /// One for each idle connection.
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Pool {
    async fn connect(database_url: &str) -> anyhow::Result<Self> {
        let mut idle = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            idle.push(PgConnection::connect(database_url).await?);
        }
        Ok(Self {
            permits: Semaphore::new(CONNECTIONS),
            idle: Mutex::new(idle),
        })
    }

    async fn borrow(&self) -> anyhow::Result<Borrowed<'_>> {
        let permit = self.permits.acquire().await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Borrowed {
            connection: idle.pop(),
            pool: self,
            _permit: permit,
        })
    }
}

/// A connection that returns to the pool when this value is dropped, and after it the permit.
struct Borrowed<'a> {
    connection: Option<PgConnection>,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Borrowed<'_> {
    fn connection(&mut self) -> anyhow::Result<&mut PgConnection> {
        let connection = self.connection.as_mut();
        connection.context("the pool has more permits than connections")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let mut idle = self
            .pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
    }
}
