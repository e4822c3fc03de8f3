//! Messages are sent when they are due. The workers poll once a minute, so no poll finds a message in time by chance.

use serde_json::json;

use harness::{Row, World, peer};
use time::Duration;

/// Asserts that the message was sent within two seconds after its due time. The poll interval is far longer.
fn assert_prompt(row: &Row) {
    let late = row.sent_at.expect("a call") - row.due_at;
    assert!(
        (Duration::ZERO..Duration::seconds(2)).contains(&late),
        "late by {late}"
    );
}

#[tokio::test]
async fn a_scheduled_message_is_called_when_it_is_due_and_not_before() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    worker.until_logged("worker_started").await;
    world.until_idle().await;
    let mut ids = Vec::new();
    // The second message is due earlier than the moment until which the worker waits.
    for ms in [2_500, 1_500] {
        let due_at = world.time_in(ms).await;
        ids.push(world.insert(peer(json!({"due_at": due_at}))).await);
    }
    for id in ids {
        let row = world.until_final(id).await;
        assert_prompt(&row);
        // On a busy machine the insert itself comes late.
        let waited = row.sent_at.expect("called") - row.created_at;
        assert!(waited >= Duration::milliseconds(500), "{waited}");
    }
}

#[tokio::test]
async fn a_message_scheduled_before_the_worker_started_is_sent_when_it_is_due() {
    let world = World::new().await;
    let due_at = world.time_in(1_500).await;
    let id = world.insert(peer(json!({"due_at": due_at}))).await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    assert_prompt(&world.until_final(id).await);
}

#[tokio::test]
async fn a_retry_is_called_when_it_is_due() {
    let world = World::new().await;
    let _worker = world
        .worker()
        .env("WORKER_POLL_INTERVAL", "60s")
        .env("WORKER_RETRY_BASE", "400ms")
        .env("WORKER_RETRY_CAP", "3s")
        .start();
    // Without an accepted message, the lane would be held, and a probe ignores the due time of a retry.
    world.assert_sends().await;
    world.set_faults(&["500:first_calls=2"]);
    let (_, row) = world.deliver(json!({"payload": "again"})).await;
    assert_eq!(row.attempts, 3);
    let calls = world.calls_of("again");
    // The delay doubles, and jitter changes it by half at most.
    for (pair, least_ms, most_ms) in [(&calls[..2], 200, 600), (&calls[1..], 400, 1_200)] {
        let pause_ms = (pair[1].at_us - pair[0].at_us) / 1_000;
        // The clocks of the database and of the simulator may drift apart by a little.
        assert!(pause_ms >= least_ms - 20, "after {pause_ms} ms");
        assert!(pause_ms < most_ms + 2_000, "after {pause_ms} ms");
    }
}
