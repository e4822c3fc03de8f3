//! A worker whose process is suspended.

use std::time::Duration;

use testkit::{APP_ID, World, api_with_limit, fleet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_worker_sends_no_burst_and_loses_and_repeats_no_message() {
    let world = World::alone(api_with_limit(200)).await;
    let mut fleet = fleet(3, || world.worker().env("WORKER_RATE", "200")).await;
    world.insert_many(1_100).await;
    world.until_accepted(200).await;
    fleet[0].signal("STOP").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = world.seen().accepted;
    assert!(before > 500, "the others have gone on");
    assert!(before < 1_000, "it is back before everything is sent");
    fleet[0].signal("CONT").await;
    world.until_all_final().await;

    world.assert_sent_once(1_100).await;
    world.assert_no_repeats(1_100);
    let worst = world.seen().apps[APP_ID].worst_sliding_second;
    assert!(worst <= 200, "{worst} calls in a second");
    let back: i64 = world
        .ask(
            "select count(*) from signaling.outbox as one
             where claimed_by = 'worker-0' and sent_at > (select max(sent_at) - interval '1 s' from signaling.outbox)",
        )
        .await;
    assert!(back > 0, "it takes part again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_suspended_past_its_leases_does_not_use_them() {
    let world = World::with(api_with_limit(100)).await;
    let mut fleet = fleet(2, || {
        world.worker().env("WORKER_RATE", "100").short_leases()
    })
    .await;
    world.insert_many(200).await;
    world.until_accepted(40).await;
    fleet[0].signal("STOP").await;
    // The other worker sends all messages, also those of the suspended worker.
    world.until_all_final().await;
    let before = world.seen().calls;
    fleet[0].signal("CONT").await;
    // The other worker has stopped, so another message shows that this one has resumed.
    fleet[1].stop().await;
    let next = serde_json::json!({"payload": "next"});
    let (_, row) = world.deliver(next).await;
    assert_eq!(row.claimed_by.as_deref(), Some("worker-0"));
    assert_eq!(world.seen().calls, before + 1);
    assert_eq!(world.count("status = 'message_sent'").await, 201);
    let worst = world.seen().apps[APP_ID].worst_sliding_second;
    assert!(worst <= 100, "{worst} calls in a second");
}
