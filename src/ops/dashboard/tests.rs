use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::Service as _;
use hyper::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use sqlx::{Connection, PgConnection};
use testkit::postgres::ThrowawayPostgres;

use super::*;
use crate::ops;
use crate::outbox::DEFAULT_MAX_AGE;
use crate::secret::SecretSource;

async fn status(router: &Router, request: hyper::http::request::Builder, form: &str) -> StatusCode {
    let request = request
        .header(HOST, "localhost")
        .header("sec-fetch-site", "same-origin")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap();
    let service = TowerToHyperService::new(router.clone());
    service.call(request).await.unwrap().status()
}

/// `worker run` always has connections for its work. Only a test inside of the process can start without any.
#[tokio::test]
async fn pages_and_actions_use_no_connection_of_the_lanes() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("dashboard").await.unwrap();
    let secret = Some(SecretSource::value(&*url));
    let outbox = Outbox::connect(secret, 0, DEFAULT_MAX_AGE).await;
    let outbox = Arc::new(outbox.unwrap());
    outbox
        .migrate(Duration::from_secs(30), |_| ())
        .await
        .unwrap();
    let mut producer = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
         values ('default', 100, 100, signaling.slot_rate(100));
         insert into signaling.outbox (sender, destination, payload)
         select 'alice', 'bob', 'hello' from generate_series(1, 3);
         update signaling.outbox set status = 'failed', attempts = 1, sent_at = now(), finished_at = now(), http_status = 404,
                                     error = 'no such user'
         where id > 1;
         insert into signaling.attempt (message_id, attempt, sent_at, http_status, outcome, error)
         select id, 1, sent_at, http_status, 'rejected', error from signaling.outbox where status = 'failed'",
    )
    .execute(&mut producer)
    .await
    .unwrap();
    let state = OpsState::default();
    state.outbox.set(Arc::clone(&outbox)).unwrap();
    let router = ops::router(state);

    for path in ["/", "/messages?state=queued", "/messages/1", "/failures"] {
        let shown = status(&router, Request::get(path), "").await;
        assert_eq!(shown, StatusCode::OK, "{path}");
    }
    for (action, form) in [
        ("pause", "app=default"),
        ("resume", "app=default"),
        ("limit", "app=default&limit=42"),
        ("cancel", "id=1"),
        ("retry", "id=2"),
    ] {
        let request = Request::post(format!("/actions/{action}"));
        let done = status(&router, request, form).await;
        assert_eq!(done, StatusCode::SEE_OTHER, "{action}");
    }
    let statuses: Vec<String> =
        sqlx::query_scalar("select status from signaling.outbox order by id")
            .fetch_all(&mut producer)
            .await
            .unwrap();
    assert_eq!(statuses, ["cancelled", "pending", "failed"]);

    producer.close().await.unwrap();
    outbox.close().await;
    cluster.stop().await.unwrap();
}
