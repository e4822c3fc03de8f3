//! The API refuses the credentials of an app, or one message alone.

use serde_json::json;

use testkit::{World, peer};

#[tokio::test]
async fn a_403_holds_the_app_like_a_401() {
    let world = World::new().await;
    world.set_faults(&["403:count=2"]);
    let id = world.insert(peer(json!({"max_attempts": 1}))).await;
    let worker = world.worker().start();
    worker.until_logged("lane_held").await;
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    let attempts = world.attempts(id).await;
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        let found = (attempt.outcome.as_str(), attempt.http_status);
        assert_eq!(found, ("unauthorized", Some(403)));
        assert!(!attempt.charged, "the message is not at fault");
    }
}

#[tokio::test]
async fn a_message_that_the_api_refuses_alone_is_charged_and_holds_nothing() {
    let world = World::new().await;
    world.set_faults(&["401:destination=refused", "403:destination=forbidden"]);
    let worker = world.worker().start();
    for destination in ["refused", "forbidden"] {
        world.assert_sends().await;
        let message = json!({"destination": destination, "max_attempts": 2});
        let (id, row) = world.deliver(message).await;
        assert_eq!((row.status.as_str(), row.attempts), ("failed", 2));
        for attempt in world.attempts(id).await {
            assert_eq!(attempt.outcome, "unauthorized");
            assert_eq!(attempt.fault.as_deref(), Some("message"));
        }
    }
    assert_eq!(worker.logged("lane_held"), 0);
}

#[tokio::test]
async fn a_held_app_recovers_without_a_new_message() {
    let world = World::new().await;
    world.set_faults(&["401:count=2"]);
    world.insert_many(20).await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_all_final().await;
    worker.until_logged("lane_released").await;
    assert_eq!(world.seen().accepted, 20);
}

#[tokio::test]
async fn a_message_expires_also_while_its_app_is_held_or_waits_for_retry_after() {
    for (fault, event) in [
        ("401", "lane_held"),
        ("429:retry_after=600", "lane_throttled"),
    ] {
        let world = World::new().await;
        world.set_faults(&[fault]);
        let waiting = world.insert(peer(json!({}))).await;
        let worker = world.worker().start();
        worker.until_logged(event).await;
        let soon = world.time_in(300).await;
        let (_, row) = world.deliver(json!({"expires_at": soon})).await;
        assert_eq!(row.status, "expired", "{fault}");
        assert_eq!(world.row(waiting).await.status, "pending", "{fault}");
    }
}
