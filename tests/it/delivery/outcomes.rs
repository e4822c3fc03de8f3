//! Messages that end in their first attempt or without one.

use serde_json::json;

use harness::{World, channel, peer};

#[tokio::test]
async fn each_kind_of_message_ends_with_the_status_and_request_id_of_the_api() {
    let world = World::new().await;
    let acked = |destination: &str| {
        peer(json!({"destination": destination, "wait_for_ack": true, "payload": destination}))
    };
    let messages = [
        ("message_sent", "sent", peer(json!({"payload": "sent"}))),
        ("message_delivered", "online-1", acked("online-1")),
        ("message_offline", "offline-1", acked("offline-1")),
        ("message_sent", "all", channel(json!({"payload": "all"}))),
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
        assert_eq!((row.status.as_str(), row.attempts), (*status, 1));
        assert_eq!((row.http_status, row.error.as_deref()), (Some(200), None));
        assert_eq!(row.request_id.as_ref(), Some(&calls[0].request_id));
        assert_eq!(row.claimed_by.as_deref(), Some("the-worker"));
        let times = [Some(row.created_at), row.sent_at, row.finished_at];
        assert!(times.is_sorted() && !times.contains(&None), "{row:?}");
        // The attempt log has failures alone.
        assert!(world.attempts(id).await.is_empty());
    }
}

#[tokio::test]
async fn a_message_that_the_api_rejects_fails_at_once_with_its_reason() {
    let world = World::new().await;
    world.set_faults(&[
        r#"400:destination=d400,body={"result":"failed","request_id":"r-400","reason":"no such thing"}"#,
        "415:destination=d415",
        r#"435:destination=d435,body={"message":"illegal content"}"#,
    ]);
    let _worker = world.worker().start();
    for status in [400, 415, 435] {
        let destination = format!("d{status}");
        let (id, row) = world.deliver(json!({"destination": destination})).await;
        assert_eq!((row.status.as_str(), row.attempts), ("failed", 1));
        assert_eq!(row.http_status, Some(status));
        let error = row.error.expect("an error");
        assert!(error.contains(&status.to_string()), "{error}");
        let attempts = world.attempts(id).await;
        let [attempt] = &attempts[..] else {
            panic!("one attempt: {attempts:?}")
        };
        assert_eq!((attempt.number, attempt.outcome.as_str()), (1, "rejected"));
        let found = (attempt.http_status, attempt.sent_at);
        assert_eq!(found, (Some(status), row.sent_at));
        match status {
            400 => {
                assert!(error.contains("no such thing"), "{error}");
                assert_eq!(row.request_id.as_deref(), Some("r-400"));
            }
            435 => assert!(error.contains("illegal content"), "{error}"),
            _ => {}
        }
    }
    assert_eq!(world.seen().calls, 3, "a rejected message is sent again");
}
