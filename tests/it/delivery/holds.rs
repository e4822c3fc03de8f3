//! When the API refuses the app and not the message.

use serde_json::json;

use testkit::{API_KEY, API_SECRET, PATIENCE, World, basic, peer, warm_up};

#[tokio::test]
async fn wrong_credentials_fail_no_message_and_cost_only_a_handful_of_calls() {
    let world = World::new().await;
    world.set_credentials(basic(API_KEY, "another secret"));
    world.insert_many(100).await;
    let once = world
        .insert(peer(json!({"max_attempts": 1, "at_most_once": true})))
        .await;
    let _worker = world.worker().start();
    world
        .until("several probes were refused", PATIENCE, async || {
            world
                .ask("select coalesce(max(hold_probes), 0) >= 2 from signaling.lane")
                .await
        })
        .await;

    let (hold, reason): (String, String) =
        sqlx::query_as("select hold, hold_reason from signaling.lane where app = 'default'")
            .fetch_one(&world.pool)
            .await
            .expect("the lane");
    assert_eq!(hold, "unauthorized");
    assert!(reason.contains("401"), "{reason}");
    let calls = world.seen().calls;
    assert!(
        calls < 50,
        "{calls} calls with credentials that are known to be wrong"
    );
    assert_eq!(
        world.count("status = 'pending' and attempts = 0").await,
        101
    );

    world.set_credentials(basic(API_KEY, API_SECRET));
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        101
    );
    assert_eq!(world.row(once).await.status, "message_sent");
    assert_eq!((world.seen().accepted, world.seen().duplicates), (101, 0));
    assert!(
        world
            .ask::<bool>("select hold is null from signaling.lane")
            .await
    );
}

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
        assert_eq!(
            (attempt.outcome.as_str(), attempt.http_status),
            ("unauthorized", Some(403))
        );
        assert!(!attempt.charged, "the message is not at fault");
    }
}

#[tokio::test]
async fn a_message_that_the_api_refuses_alone_is_charged_and_holds_nothing() {
    let world = World::new().await;
    world.set_faults(&["401:destination=refused", "403:destination=forbidden"]);
    let worker = world.worker().start();
    for destination in ["refused", "forbidden"] {
        warm_up(&world).await;
        let message = json!({"destination": destination, "max_attempts": 2});
        let id = world.insert(peer(message)).await;
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("failed", 2));
        for attempt in world.attempts(id).await {
            assert_eq!(attempt.outcome, "unauthorized");
            assert_eq!(attempt.fault.as_deref(), Some("message"));
        }
    }
    assert_eq!(worker.logged("lane_held"), 0);
}

#[tokio::test]
async fn a_held_app_goes_on_by_itself_also_with_nothing_new_inserted() {
    let world = World::new().await;
    world.set_faults(&["401:count=2"]);
    world.insert_many(20).await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_all_final().await;
    worker.until_logged("lane_released").await;
    assert_eq!(world.seen().accepted, 20);
}

#[tokio::test]
async fn a_message_expires_also_while_its_app_is_held() {
    let world = World::new().await;
    world.set_credentials(basic(API_KEY, "another secret"));
    let held = world.insert(peer(json!({}))).await;
    let worker = world.worker().start();
    worker.until_logged("lane_held").await;
    let id = world
        .insert(peer(json!({"expires_at": world.time_in(300).await})))
        .await;
    let row = world.until_final(id).await;
    assert_eq!(row.status, "expired");
    assert_eq!(world.row(held).await.status, "pending");
}
