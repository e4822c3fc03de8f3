//! Signing in with a browser.

use std::fs;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::door::{Answer, Door, Watched};
use testkit::{PATIENCE, World, until};

const TOKEN: &str = "zebra-token-0918273645";
const PAGE: [(&str, &str); 1] = [("accept", "text/html,*/*")];

async fn world_with_token() -> (World, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), TOKEN).expect("written");
    (World::new().await, file)
}

async fn start(world: &World, file: &tempfile::NamedTempFile) -> Watched {
    let path = file.path().display().to_string();
    Watched::start(world.worker().env("WORKER_OPS_TOKEN_FILE", &path)).await
}

async fn sign_in(door: Door, token: &str) -> Answer {
    let form = format!("token={token}&next=%2Fmetrics");
    door.post("/login", &[], &form).await
}

/// The cookie that an answer sets, as a browser sends it back.
fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    cookie.split(';').next().expect("a cookie").to_owned()
}

#[tokio::test]
async fn a_browser_signs_in_with_the_token_and_has_a_cookie_that_every_process_takes() {
    let (world, file) = world_with_token().await;
    let watched = start(&world, &file).await;
    let door = watched.door;
    let sent_away = door.get_with("/messages?app=a&b=c", &PAGE).await;
    assert_eq!(sent_away.status, 303);
    let address = sent_away.header("location").expect("an address").to_owned();
    assert_eq!(address, "/login?next=%2Fmessages%3Fapp%3Da%26b%3Dc");
    let form = door.get_with(&address, &PAGE).await;
    assert_eq!(form.status, 200);
    assert!(
        form.body.contains("value=\"/messages?app=a&amp;b=c\""),
        "{form:?}"
    );

    let wrong = sign_in(door, "zebra-token-0918273646").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("set-cookie").is_none() && wrong.body.contains("not the token"));
    let right = sign_in(door, TOKEN).await;
    assert_eq!(
        (right.status, right.header("location")),
        (303, Some("/metrics"))
    );
    let cookie = cookie(&right);
    assert!(!cookie.contains(TOKEN), "{cookie}");

    let other = start(&world, &file).await;
    for door in [door, other.door] {
        let with_cookie = [("cookie", cookie.as_str())];
        assert_eq!(door.get_with("/metrics", &with_cookie).await.status, 200);
        // A cookie does not make another site's request one of ours.
        let foreign = [
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(door.ask("POST", "/logout", &foreign, "").await.status, 403);
    }
    let wrong_cookie = format!("{}0", &cookie[..cookie.len() - 1]);
    let other_cookie = format!("{}1", &cookie[..cookie.len() - 1]);
    let let_in = [
        door.get_with("/metrics", &[("cookie", &wrong_cookie)])
            .await
            .status,
        door.get_with("/metrics", &[("cookie", &other_cookie)])
            .await
            .status,
    ];
    assert!(let_in.contains(&401), "{let_in:?}");
    let token_as_cookie = format!("signaling_ops={TOKEN}");
    let headers = [("cookie", token_as_cookie.as_str())];
    assert_eq!(door.get_with("/metrics", &headers).await.status, 401);

    let signed_out = door.post("/logout", &[("cookie", &cookie)], "").await;
    assert_eq!(
        (signed_out.status, signed_out.header("location")),
        (303, Some("/login"))
    );
    assert!(
        signed_out
            .header("set-cookie")
            .is_some_and(|cookie| cookie.contains("Max-Age=0"))
    );

    // A new token ends what was signed in with the old one.
    fs::write(file.path(), "another-token-5647382910").expect("written");
    until("the cookie is not taken any more", PATIENCE, async || {
        door.get_with("/metrics", &[("cookie", &cookie)])
            .await
            .status
            == 401
    })
    .await;
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_the_right_token_gets_in_at_once() {
    let (world, file) = world_with_token().await;
    let watched = start(&world, &file).await;
    let door = watched.door;
    let begun = Instant::now();
    let mut guesses = JoinSet::new();
    for _ in 0..20 {
        guesses.spawn(sign_in(door, "zebra-token-of-somebody-else"));
    }
    let first = guesses.join_next().await.expect("one").expect("answered");
    assert_eq!(first.status, 401);
    assert!(begun.elapsed() >= Duration::from_secs(1), "not slowed down");
    // No number of wrong ones is in the way of the right one.
    assert_eq!(sign_in(door, TOKEN).await.status, 303);
    while let Some(guess) = guesses.join_next().await {
        assert_eq!(guess.expect("answered").status, 401);
    }
    assert_eq!(sign_in(door, TOKEN).await.status, 303);
}

#[tokio::test]
async fn signing_in_leads_to_no_other_server() {
    let (world, file) = world_with_token().await;
    let watched = start(&world, &file).await;
    for next in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
    ] {
        let form = format!("token={TOKEN}&next={next}");
        let answer = watched.door.post("/login", &[], &form).await;
        assert_eq!(answer.header("location"), Some("/"), "{next}");
    }
    let hostile = "/login?next=%2F%22%3E%3Cscript%3E";
    let form = watched.door.get_with(hostile, &PAGE).await;
    assert!(!form.body.contains("<script"), "{form:?}");
}
