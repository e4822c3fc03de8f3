//! A hand-written send loop, to compare the worker with. Each of 64 tasks claims a row, sends it, and records the result.
//! The tasks share 16 connections, and hold one only while a statement runs.
//!
//! A careful developer writes such a loop without a worker: prepared statements, `for update skip locked`, an index for each
//! query. The loop keeps no limit, does not retry, and takes no lease, so a killed loop leaves rows behind as `sending`. A
//! lease would cost more. The loop must not change between releases, so that its figures stay comparable.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const TASKS: usize = 64;
/// More connections contend for the same rows.
const CONNECTIONS: usize = 16;
/// The average pause of a task that found no message.
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

/// Sends messages until `shutdown`, or until the database or the API fails.
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
    let claimed: Option<(i64, String, String, String)> = pool
        .with(async |connection| sqlx::query_as(CLAIM).fetch_optional(connection).await)
        .await?;
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
    pool.with(async |connection| {
        sqlx::query(RECORD)
            .bind(id)
            .bind(status)
            .bind(i32::from(http_status.as_u16()))
            .bind(body["request_id"].as_str())
            .execute(connection)
            .await
    })
    .await?;
    Ok(true)
}

/// The idle connections. The pool of sqlx would ping each connection that is returned, which no setting prevents: one more
/// round trip for each statement.
struct Pool {
    idle: Mutex<Receiver<PgConnection>>,
    returned: Sender<PgConnection>,
}

impl Pool {
    async fn connect(database_url: &str) -> anyhow::Result<Self> {
        let (returned, idle) = mpsc::channel(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            returned
                .send(PgConnection::connect(database_url).await?)
                .await?;
        }
        let idle = Mutex::new(idle);
        Ok(Self { idle, returned })
    }

    /// Waits for an idle connection, and runs a statement on it. An error ends the loop, and with it the pool.
    async fn with<T>(
        &self,
        run: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> anyhow::Result<T> {
        let connection = self.idle.lock().await.recv().await;
        let mut connection = connection.context("the pool is closed")?;
        let result = run(&mut connection).await?;
        self.returned.send(connection).await?;
        Ok(result)
    }
}
