//! Messages that end at their first call, or without one.

use serde_json::json;

use testkit::{World, channel, peer, warm_up};

#[tokio::test]
async fn each_kind_of_message_ends_with_its_status_and_what_the_api_said() {
    let world = World::new().await;
    let acked = |destination: &str| {
        peer(json!({"destination": destination, "wait_for_ack": true, "payload": destination}))
    };
    let messages = [
        ("message_sent", "sent", peer(json!({"payload": "sent"}))),
        ("message_delivered", "online-1", acked("online-1")),
        ("message_offline", "offline-1", acked("offline-1")),
        (
            "message_sent",
            "channel",
            channel(json!({"payload": "channel"})),
        ),
    ];
    let mut ids = Vec::new();
    for (.., message) in &messages {
        ids.push(world.insert(message.clone()).await);
    }
    let _worker = world.worker().env("WORKER_NAME", "the-worker").start();
    for (id, (status, payload, _)) in ids.into_iter().zip(&messages) {
        let row = world.until_final(id).await;
        let calls = world.calls_of(payload);
        assert_eq!(calls.len(), 1, "{calls:?}");
        assert_eq!(row.status, *status);
        assert_eq!(row.attempts, 1);
        assert_eq!(row.http_status, Some(200));
        assert_eq!(
            row.request_id.as_deref(),
            Some(calls[0].request_id.as_str())
        );
        assert_eq!(row.error, None);
        assert_eq!(row.claimed_by.as_deref(), Some("the-worker"));
        let (sent_at, finished_at) = (
            row.sent_at.expect("called"),
            row.finished_at.expect("final"),
        );
        assert!(
            row.created_at <= sent_at && sent_at <= finished_at,
            "{row:?}"
        );
        assert!(
            world.attempts(id).await.is_empty(),
            "a call that ends well is no row of attempt"
        );
    }
}

#[tokio::test]
async fn answers_that_differ_from_the_documented_ones_are_read_all_the_same() {
    let world = World::new().await;
    let bodies = [
        ("message_sent", r#"{"result":"success","request_id":"17"}"#),
        (
            "message_sent",
            r#"{"result":"success","request_id":17,"code":"new_code"}"#,
        ),
        (
            "message_offline",
            r#"{"result":"success","code":"peer_offline"}"#,
        ),
        (
            "message_offline",
            r#"{"request_id":"17","code":"message_offline"}"#,
        ),
        (
            "message_delivered",
            r#"{"code":"message_delivered","more":{"a":[1]}}"#,
        ),
        (
            "message_offline",
            "\u{feff}{\"request_id\":\"17\",\"code\":\"message_offline\"}",
        ),
    ];
    let rules: Vec<String> = bodies
        .iter()
        .enumerate()
        .map(|(number, (_, body))| format!("200:destination=d{number},body={body}"))
        .collect();
    world.set_faults(&rules.iter().map(String::as_str).collect::<Vec<_>>());
    let mut ids = Vec::new();
    for number in 0..bodies.len() {
        ids.push(
            world
                .insert(peer(json!({"destination": format!("d{number}")})))
                .await,
        );
    }
    let _worker = world.worker().start();
    for (id, (status, body)) in ids.into_iter().zip(bodies) {
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.attempts), (status, 1), "{body}");
        if body.contains("17") {
            assert_eq!(row.request_id.as_deref(), Some("17"), "{body}");
        }
    }
}

#[tokio::test]
async fn a_message_that_the_api_refuses_fails_at_once_with_the_apis_reason() {
    let world = World::new().await;
    world.set_faults(&[
        r#"400:destination=d400,body={"result":"failed","request_id":"r-400","reason":"no such thing"}"#,
        "415:destination=d415",
        r#"435:destination=d435,body={"message":"illegal content"}"#,
    ]);
    let _worker = world.worker().start();
    for status in [400, 415, 435] {
        let id = world
            .insert(peer(json!({"destination": format!("d{status}")})))
            .await;
        let row = world.until_final(id).await;
        assert_eq!(
            (row.status.as_str(), row.attempts),
            ("failed", 1),
            "{row:?}"
        );
        assert_eq!(row.http_status, Some(status));
        let error = row.error.expect("an error");
        assert!(error.contains(&status.to_string()), "{error}");
        let attempts = world.attempts(id).await;
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].outcome, "rejected");
        assert_eq!(attempts[0].number, 1);
        assert_eq!(attempts[0].http_status, Some(status));
        assert_eq!(attempts[0].sent_at, row.sent_at);
        match status {
            400 => {
                assert!(error.contains("no such thing"), "{error}");
                assert_eq!(row.request_id.as_deref(), Some("r-400"));
            }
            435 => assert!(error.contains("illegal content"), "{error}"),
            _ => {}
        }
    }
    assert_eq!(world.seen().calls, 3, "none was called again");
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_not_called() {
    let world = World::new().await;
    let past = world
        .insert(peer(json!({"expires_at": "2001-01-01"})))
        .await;
    let _worker = world.worker().start();
    let row = world.until_final(past).await;
    assert_eq!(
        (row.status.as_str(), row.attempts, row.sent_at),
        ("expired", 0, None)
    );
    assert!(row.error.expect("an error").contains("expires_at"));

    let sent = world
        .insert(peer(json!({"expires_at": world.time_in(60_000).await})))
        .await;
    assert_eq!(world.until_final(sent).await.status, "message_sent");
    assert_eq!(world.seen().calls, 1);
}

#[tokio::test]
async fn a_message_that_expires_before_its_retry_ends_as_expired() {
    let world = World::new().await;
    let _worker = world.worker().start();
    warm_up(&world).await;
    world.set_faults(&["500"]);
    let id = world
        .insert(peer(
            json!({"expires_at": world.time_in(1_500).await, "max_attempts": 1_000}),
        ))
        .await;
    let row = world.until_final(id).await;
    assert_eq!(row.status, "expired");
    assert!(row.attempts >= 1);
    assert!(
        row.error.expect("an error").contains("500"),
        "it says what went wrong before"
    );
    let calls = world.calls_of("hello").len();
    assert_eq!(calls, usize::try_from(row.attempts).expect("positive"));
}
