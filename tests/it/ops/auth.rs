//! Access to the ops server: hosts, origins, tokens and limits.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::ops_client::{OpsClient, OpsWorker, Response};
use harness::{API_SECRET, PATIENCE, World, assert_contains, peer, until};

const TOKEN: &str = "zebra-token-0918273645";

const PATHS: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/", "/no-such-page"];

async fn get_as(client: OpsClient, authorization: &str, path: &str) -> Response {
    let headers = [("authorization", authorization)];
    client.get_with(path, &headers).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn another_sites_name_and_another_sites_page_are_refused() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    let client = ops.client;
    for path in PATHS {
        let refused = client.get_with(path, &[("host", "evil.example")]).await;
        assert_eq!(refused.status, 403, "{path}");
        assert_contains(&refused.body, &["WORKER_OPS_TOKEN_FILE"]);
    }
    for (site, status) in [("same-origin", 405), ("cross-site", 403)] {
        for method in ["POST", "PUT", "DELETE"] {
            // The route has no such method. A request that passes gets 405.
            let headers = [("sec-fetch-site", site)];
            let response = client.ask(method, "/healthz", &headers, "").await;
            assert_eq!(response.status, status, "{method} {site}");
        }
    }
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    let client = ops.client;
    let responses = [
        client.get("/healthz").await,
        client.get("/readyz").await,
        client.get("/metrics").await,
        client.get("/no-such-page").await,
        client.get_with("/", &[("host", "evil.example")]).await,
        client.ask("POST", "/", &[], "").await,
    ];
    for response in responses {
        let policy = response
            .header("content-security-policy")
            .unwrap_or_default();
        let parts = [
            "default-src 'none'",
            "script-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ];
        assert_contains(policy, &parts);
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("same-origin"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    let client = ops.client;
    let long = "x".repeat(70_000);
    assert_eq!(client.post("/actions/pause", &[], &long).await.status, 413);
    let head = client.get_with("/healthz", &[("x-long", &long)]).await;
    assert_eq!(head.status, 431);
    assert_eq!(client.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn idle_connections_keep_no_client_out() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    let heads = [
        "",
        "POST /actions/pause HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n",
    ];
    // Connections without a request, and connections with half a request.
    for head in heads {
        let mut silent = Vec::new();
        for _ in 0..80 {
            let mut stream = TcpStream::connect(ops.client.0).await.expect("connected");
            // The server may have closed the connection already.
            stream.write_all(head.as_bytes()).await.ok();
            silent.push(stream);
        }
        // The server waits twice as long for the end of a request.
        let healthy = tokio::time::timeout(PATIENCE / 2, ops.client.get("/healthz"))
            .await
            .expect("the client waits for no other connection");
        assert_eq!(healthy.status, 200);
    }
}

#[tokio::test]
async fn metrics_and_pages_need_the_token_and_health_does_not() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), format!("{TOKEN}\n")).expect("written");
    let path = file.path().display().to_string();
    let ops = OpsWorker::start(world.worker().env("WORKER_OPS_TOKEN_FILE", &path)).await;
    let client = ops.client;
    ops.until_ready().await;
    assert_eq!(client.get("/healthz").await.status, 200);
    // With a token, any host name is right.
    let elsewhere = [("host", "ops.example")];
    assert_eq!(client.get_with("/readyz", &elsewhere).await.status, 200);

    for path in ["/metrics", "/", "/messages/1", "/no-such-page"] {
        let refused = client.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Basic realm=\"worker\""));
    }
    let metrics =
        async |authorization: &str| get_as(client, authorization, "/metrics").await.status;
    let right = bearer(TOKEN);
    let basic = STANDARD.encode(format!("operator:{TOKEN}"));
    assert_eq!(metrics("Bearer wrong").await, 401);
    assert_eq!(metrics(&right).await, 200);
    assert_eq!(metrics(&format!("Basic {basic}")).await, 200);
    let missing = get_as(client, &right, "/no-such-page").await;
    assert_eq!(missing.status, 404);

    // The worker reads the file again.
    let other = bearer("another-token-5647382910");
    fs::write(file.path(), &other["Bearer ".len()..]).expect("written");
    let is_taken = async || metrics(&other).await == 200;
    until("the new token is taken", PATIENCE, is_taken).await;
    assert_eq!(metrics(&right).await, 401);
    fs::write(file.path(), "short").expect("written");
    let is_refused = async || metrics(&other).await == 503;
    until("the short token is refused", PATIENCE, is_refused).await;
    ops.worker.until_logged("ops_token_failed").await;
    assert_eq!(metrics("Bearer short").await, 503);
    assert_eq!(client.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn no_response_shows_a_payload_or_a_secret() {
    let world = World::new().await;
    let payload = "zebra payload 7364528190";
    world.set_faults(&[&format!(
        "401:body={}",
        json!({"reason": format!("no: {payload}")})
    )]);
    world.insert(peer(json!({"payload": payload}))).await;
    let ops = OpsWorker::start(world.worker().file("WORKER_OPS_TOKEN_FILE", TOKEN)).await;
    until("the app is unauthorized", PATIENCE, async || {
        let metrics = get_as(ops.client, &bearer(TOKEN), "/metrics").await;
        metrics.body.contains("state=\"unauthorized\"} 1")
    })
    .await;
    let password = world.url.split(['@', ':']).nth(2).expect("a password");
    let mut shown = ops.worker.stderr.text();
    for path in PATHS {
        let with_token = get_as(ops.client, &bearer(TOKEN), path).await;
        for response in [ops.client.get(path).await, with_token] {
            shown = format!("{shown}\n{:?}\n{}", response.headers, response.body);
        }
    }
    for (what, secret) in [
        ("the payload", payload),
        ("the API's secret", API_SECRET),
        ("the token", TOKEN),
        ("the database's password", password),
    ] {
        assert!(!shown.contains(secret), "{what} is shown: {shown}");
    }
    assert!(!ops.worker.command_line().contains(TOKEN));
}

#[tokio::test]
async fn readiness_without_the_token_names_failed_checks_without_details() {
    let world = World::new().await;
    // No server listens at this port.
    let worker = world
        .worker()
        .env("DATABASE_URL", "postgres://zebra@127.0.0.1:1/stripes")
        .file("WORKER_OPS_TOKEN_FILE", TOKEN);
    let ops = OpsWorker::start(worker).await;
    let ask = async |token: &str| get_as(ops.client, &bearer(token), "/readyz").await;
    let has_tried = async || ask(TOKEN).await.body.contains("127.0.0.1:1");
    until("it has tried", PATIENCE, has_tried).await;
    let wrong = ask("zebra-token-0918273645x").await;
    for response in [ops.client.get("/readyz").await, wrong] {
        assert_eq!(response.status, 503);
        assert_contains(&response.body, &["ok   process", "FAIL database"]);
        assert!(!response.body.contains("127.0.0.1"), "{response:?}");
    }
}
