//! The login of a browser.

use std::fs;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::ops_client::{OpsClient, OpsWorker, Response};
use testkit::{PATIENCE, World, until};

const TOKEN: &str = "zebra-token-0918273645";
const PAGE: [(&str, &str); 1] = [("accept", "text/html,*/*")];

async fn world_with_token() -> (World, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    (World::new().await, file)
}

async fn start(world: &World, file: &tempfile::NamedTempFile) -> OpsWorker {
    let path = file.path().display().to_string();
    OpsWorker::start(world.worker().env("WORKER_OPS_TOKEN_FILE", &path)).await
}

async fn sign_in(client: OpsClient, token: &str) -> Response {
    let form = format!("token={token}&next=%2Fmetrics");
    client.post("/login", &[], &form).await
}

/// Returns a response's cookie as a browser sends it back.
fn cookie(response: &Response) -> String {
    let cookie = response.header("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    cookie.split(';').next().expect("a cookie").to_owned()
}

#[tokio::test]
async fn a_browser_signs_in_with_the_token_and_every_worker_accepts_its_cookie() {
    let (world, file) = world_with_token().await;
    let ops = start(&world, &file).await;
    let client = ops.client;
    let sent_away = client.get_with("/messages?app=a&b=c", &PAGE).await;
    assert_eq!(sent_away.status, 303);
    let address = sent_away.header("location").expect("an address").to_owned();
    assert_eq!(address, "/login?next=%2Fmessages%3Fapp%3Da%26b%3Dc");
    let form = client.get_with(&address, &PAGE).await;
    assert_eq!(form.status, 200);
    assert!(
        form.body.contains("value=\"/messages?app=a&amp;b=c\""),
        "{form:?}"
    );

    let wrong = sign_in(client, "zebra-token-0918273646").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("set-cookie").is_none() && wrong.body.contains("token is wrong"));
    let right = sign_in(client, TOKEN).await;
    assert_eq!(
        (right.status, right.header("location")),
        (303, Some("/metrics"))
    );
    let cookie = cookie(&right);
    assert!(!cookie.contains(TOKEN), "{cookie}");

    let other = start(&world, &file).await;
    for client in [client, other.client] {
        let with_cookie = [("cookie", cookie.as_str())];
        assert_eq!(client.get_with("/metrics", &with_cookie).await.status, 200);
        // The cookie does not replace the check of the origin.
        let foreign = [
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(
            client.ask("POST", "/metrics", &foreign, "").await.status,
            403
        );
    }
    let wrong_cookie = format!("{}0", &cookie[..cookie.len() - 1]);
    let other_cookie = format!("{}1", &cookie[..cookie.len() - 1]);
    let let_in = [
        client
            .get_with("/metrics", &[("cookie", &wrong_cookie)])
            .await
            .status,
        client
            .get_with("/metrics", &[("cookie", &other_cookie)])
            .await
            .status,
    ];
    assert!(let_in.contains(&401), "{let_in:?}");
    let token_as_cookie = format!("signaling_ops={TOKEN}");
    let headers = [("cookie", token_as_cookie.as_str())];
    assert_eq!(client.get_with("/metrics", &headers).await.status, 401);

    // A new token ends the sessions of the old one.
    fs::write(file.path(), "another-token-5647382910").expect("written");
    until("the cookie is refused", PATIENCE, async || {
        client
            .get_with("/metrics", &[("cookie", &cookie)])
            .await
            .status
            == 401
    })
    .await;
}

#[tokio::test]
async fn wrong_tokens_are_delayed_and_do_not_delay_the_right_one() {
    let (world, file) = world_with_token().await;
    let ops = start(&world, &file).await;
    let client = ops.client;
    let begun = Instant::now();
    let mut guesses = JoinSet::new();
    for _ in 0..20 {
        guesses.spawn(sign_in(client, "zebra-token-of-another"));
    }
    let first = guesses.join_next().await.expect("one").expect("answered");
    assert_eq!(first.status, 401);
    assert!(begun.elapsed() >= Duration::from_secs(1), "not delayed");
    assert_eq!(sign_in(client, TOKEN).await.status, 303);
    while let Some(guess) = guesses.join_next().await {
        assert_eq!(guess.expect("answered").status, 401);
    }
    assert_eq!(sign_in(client, TOKEN).await.status, 303);
}

#[tokio::test]
async fn a_login_redirects_to_no_other_server() {
    let (world, file) = world_with_token().await;
    let ops = start(&world, &file).await;
    for next in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
    ] {
        let form = format!("token={TOKEN}&next={next}");
        let response = ops.client.post("/login", &[], &form).await;
        assert_eq!(response.header("location"), Some("/"), "{next}");
    }
    let hostile = "/login?next=%2F%22%3E%3Cscript%3E";
    let form = ops.client.get_with(hostile, &PAGE).await;
    assert!(!form.body.contains("<script"), "{form:?}");
}
