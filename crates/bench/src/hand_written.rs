//! A hand-written send loop, with which the benchmark compares the worker. Each of 64 tasks claims one row, sends it,
//! and marks it as sent. The loop keeps no limit, does not retry, and leaves claimed rows behind when it is killed; it
//! shows the costs of a message in a simple program.

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Messages in flight at once.
const TASKS: u32 = 64;
/// Average pause of a task that has found no message.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A typical queue table.
pub(crate) const SCHEMA: &str = "
    create schema hand_written;
    create table hand_written.message (
        id          bigint generated always as identity primary key,
        sender      text not null,
        destination text not null,
        payload     text not null,
        status      text not null default 'pending',
        created_at  timestamptz not null default now(),
        sent_at     timestamptz,
        result      text
    );
    create index message_pending on hand_written.message (id) where status = 'pending';
";

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
    let pool = PgPoolOptions::new()
        .max_connections(TASKS)
        .connect(database_url)
        .await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let api: Api = Client::builder(TokioExecutor::new()).build(connector);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (pool, api, api_url) = (pool.clone(), api.clone(), api_url.to_owned());
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
async fn send_one(pool: &PgPool, api: &Api, api_url: &str) -> anyhow::Result<bool> {
    let claimed: Option<(i64, String, String, String)> = sqlx::query_as(
        "update hand_written.message set status = 'sending', sent_at = clock_timestamp()
         where id = (select id from hand_written.message where status = 'pending'
                     order by id limit 1 for update skip locked)
         returning id, sender, destination, payload",
    )
    .fetch_optional(pool)
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
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body)?;
    let result = if status.is_success() {
        body["code"].as_str().unwrap_or("unknown")
    } else {
        "failed"
    };
    sqlx::query("update hand_written.message set status = 'done', result = $2 where id = $1")
        .bind(id)
        .bind(result)
        .execute(pool)
        .await?;
    Ok(true)
}
