//! Messages of an app that is held or has to wait.

use serde_json::json;

use harness::{World, peer};

#[tokio::test]
async fn an_app_that_a_403_holds_recovers_without_a_new_message_or_a_charge() {
    let world = World::new().await;
    world.set_faults(&["403:count=2"]);
    world.insert_many(20).await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    worker.until_logged("lane_held").await;
    world.until_all_final().await;
    worker.until_logged("lane_released").await;
    world.assert_sent_once(20).await;
    let refused = "outcome = 'unauthorized' and http_status = 403 and not charged";
    assert_eq!(world.count_attempts(refused).await, 2);
    assert_eq!(world.count_attempts("true").await, 2);
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
