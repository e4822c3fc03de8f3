//! Who may ask, from where, and how much.

use std::fs;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::door::{Door, Watched};
use testkit::{API_SECRET, PATIENCE, World, peer, until};

const TOKEN: &str = "zebra-token-0918273645";

#[tokio::test]
async fn a_server_without_a_token_answers_to_loopback_names_alone() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    let ask = async |host: &str, path: &str| {
        let answer = watched.door.get_with(path, &[("host", host)]).await;
        answer.status
    };
    for host in ["localhost", "localhost:1234", "127.0.0.1", "[::1]:9090"] {
        assert_eq!(ask(host, "/healthz").await, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", ""] {
        for path in ["/healthz", "/readyz", "/metrics", "/", "/login"] {
            assert_eq!(ask(host, path).await, 403, "{host} {path}");
        }
    }
    let twice = [("host", "localhost"), ("host", "evil.example")];
    let refused = watched.door.get_with("/healthz", &twice).await;
    assert!(
        refused.status == 400 || refused.status == 403,
        "{refused:?}"
    );
    let refused = watched
        .door
        .get_with("/", &[("host", "evil.example")])
        .await;
    assert!(
        refused.body.contains("WORKER_OPS_TOKEN_FILE"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_change_that_another_site_sends_is_refused() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    let door = watched.door;
    let here = format!("http://{}", door.0);
    let cases: [(&[(&str, &str)], bool); 7] = [
        (&[("sec-fetch-site", "same-origin")], true),
        (&[("sec-fetch-site", "cross-site")], false),
        (&[("sec-fetch-site", "same-site"), ("origin", &here)], false),
        (&[("origin", &here)], true),
        (&[("origin", "http://evil.example")], false),
        (&[("origin", "null")], false),
        (&[], false),
    ];
    for (headers, passes) in cases {
        for method in ["POST", "PUT", "DELETE"] {
            // There is nothing to be changed here: who gets through is told that.
            let answer = door.ask(method, "/healthz", headers, "").await;
            let expected = if passes { 405 } else { 403 };
            assert_eq!(answer.status, expected, "{method} {headers:?}");
        }
        assert_eq!(door.get_with("/healthz", headers).await.status, 200);
    }
}

#[tokio::test]
async fn every_answer_says_what_browsers_are_to_heed() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    let door = watched.door;
    let answers = [
        door.get("/healthz").await,
        door.get("/readyz").await,
        door.get("/metrics").await,
        door.get("/no-such-page").await,
        door.get_with("/", &[("host", "evil.example")]).await,
        door.ask("POST", "/", &[], "").await,
    ];
    for answer in answers {
        let policy = answer.header("content-security-policy").unwrap_or_default();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{part} is missing: {answer:?}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    let door = watched.door;
    let long = "x".repeat(70_000);
    assert_eq!(door.post("/login", &[], &long).await.status, 413);
    let head = door.get_with("/healthz", &[("x-long", &long)]).await;
    assert_eq!(head.status, 431);
    assert_eq!(door.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    let heads = [
        "",
        "POST /login HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n",
    ];
    // Without a request, and with one that has no end.
    for head in heads {
        let mut silent = Vec::new();
        for _ in 0..80 {
            let mut stream = TcpStream::connect(watched.door.0).await.expect("connected");
            // It may have lost its place to another one.
            stream.write_all(head.as_bytes()).await.ok();
            silent.push(stream);
        }
        // A request without an end would be waited for twice as long.
        let healthy = tokio::time::timeout(PATIENCE / 2, watched.door.get("/healthz"))
            .await
            .expect("nobody is waited for");
        assert_eq!(healthy.status, 200);
    }
}

#[tokio::test]
async fn with_a_token_metrics_and_pages_need_it_and_health_does_not() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), format!("{TOKEN}\n")).expect("written");
    let path = file.path().display().to_string();
    let watched = Watched::start(world.worker().env("WORKER_OPS_TOKEN_FILE", &path)).await;
    let door = watched.door;
    watched.until_ready().await;
    assert_eq!(door.get("/healthz").await.status, 200);
    // Whatever it is called by: the token is what counts.
    let elsewhere = [("host", "ops.example")];
    assert_eq!(door.get_with("/readyz", &elsewhere).await.status, 200);

    let ask = async |path: &str, authorization: &str| {
        let headers = [("authorization", authorization)];
        door.get_with(path, &headers).await
    };
    let right = format!("Bearer {TOKEN}");
    for path in ["/metrics", "/", "/messages/1", "/no-such-page"] {
        let refused = door.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    for wrong in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer zebra-token-0918273646",
        TOKEN,
    ] {
        assert_eq!(ask("/metrics", wrong).await.status, 401, "{wrong:?}");
    }
    assert_eq!(ask("/metrics", &right).await.status, 200);
    assert_eq!(ask("/no-such-page", &right).await.status, 404);

    // The file is read again when it changes.
    let other = "another-token-5647382910";
    fs::write(file.path(), other).expect("written");
    until("the new token is taken", PATIENCE, async || {
        ask("/metrics", &format!("Bearer {other}")).await.status == 200
    })
    .await;
    assert_eq!(ask("/metrics", &right).await.status, 401);
    fs::write(file.path(), "short").expect("written");
    until("nobody gets in", PATIENCE, async || {
        ask("/metrics", &format!("Bearer {other}")).await.status == 503
    })
    .await;
    watched.worker.until_logged("ops_token_failed").await;
    assert_eq!(ask("/metrics", "Bearer short").await.status, 503);
    assert_eq!(door.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn no_answer_shows_a_payload_or_a_secret() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    let path = file.path().display().to_string();
    let payload = "zebra payload 7364528190";
    world.set_faults(&[&format!(
        "401:body={}",
        json!({"reason": format!("no: {payload}")})
    )]);
    world.insert(peer(json!({"payload": payload}))).await;
    let watched = Watched::start(world.worker().env("WORKER_OPS_TOKEN_FILE", &path)).await;
    let token = format!("Bearer {TOKEN}");
    until("the app is unauthorized", PATIENCE, async || {
        let headers = [("authorization", token.as_str())];
        let ready = watched.door.get_with("/readyz", &headers).await;
        ready.body.contains("note the app default is unauthorized")
    })
    .await;
    let password = world.url.split(['@', ':']).nth(2).expect("a password");
    let shown = everything(watched.door).await + &watched.worker.stderr.text();
    for (what, secret) in [
        ("the payload", payload),
        ("the API's secret", API_SECRET),
        ("the token", TOKEN),
        ("the database's password", password),
    ] {
        assert!(!shown.contains(secret), "{what} is shown: {shown}");
    }
    assert!(!watched.worker.command_line().contains(TOKEN));
}

#[tokio::test]
async fn who_has_no_token_is_told_which_checks_fail_and_no_more() {
    let world = World::new().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    let path = file.path().display().to_string();
    // Nobody listens there.
    let worker = world
        .worker()
        .env("DATABASE_URL", "postgres://zebra@127.0.0.1:1/stripes")
        .env("WORKER_OPS_TOKEN_FILE", &path);
    let watched = Watched::start(worker).await;
    let right = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {TOKEN}x");
    let ask = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        watched.door.get_with("/readyz", &headers).await
    };
    until("it has tried", PATIENCE, async || {
        ask(&right).await.body.contains("127.0.0.1:1")
    })
    .await;
    for answer in [watched.door.get("/readyz").await, ask(&wrong).await] {
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("ok   process"), "{answer:?}");
        assert!(answer.body.contains("FAIL database"), "{answer:?}");
        assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
    }
}

/// All that is served without a page of the dashboard, with the token and without.
async fn everything(door: Door) -> String {
    let bearer = format!("Bearer {TOKEN}");
    let mut all = Vec::new();
    for path in ["/healthz", "/readyz", "/metrics", "/login", "/no-such-page"] {
        for headers in [&[][..], &[("authorization", bearer.as_str())]] {
            let answer = door.get_with(path, headers).await;
            all.push(format!("{:?}\n{}", answer.headers, answer.body));
        }
    }
    let wrong = format!("token={TOKEN}x");
    all.push(format!("{:?}", door.post("/login", &[], &wrong).await));
    all.join("\n")
}
