//! A worker whose process stands still for a while.

use std::time::Duration;

use testkit::{APP_ID, World};
use testkit::{api_with_limit, fleet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_away_sends_no_burst_loses_nothing_and_calls_nothing_twice() {
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

    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        1_100
    );
    let app = &world.seen().apps[APP_ID];
    assert_eq!((app.calls, app.duplicates), (1_100, 0));
    assert_eq!(app.by_status.get(&200), Some(&1_100), "{:?}", app.by_status);
    assert!(
        app.worst_sliding_second <= 200,
        "{} calls in a second",
        app.worst_sliding_second
    );
    let back: i64 = world
        .ask(
            "select count(*) from signaling.outbox as one
             where claimed_by = 'worker-0' and sent_at > (select max(sent_at) - interval '1 s' from signaling.outbox)",
        )
        .await;
    assert!(back > 0, "it takes part again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_away_for_longer_than_its_leases_does_not_use_them() {
    let world = World::with(api_with_limit(100)).await;
    let mut fleet = fleet(2, || {
        world
            .worker()
            .env("WORKER_RATE", "100")
            .env("WORKER_REQUEST_TIMEOUT", "1s")
            .env("WORKER_LEASE", "2s")
    })
    .await;
    world.insert_many(200).await;
    world.until_accepted(40).await;
    fleet[0].signal("STOP").await;
    // The other one sends everything, also what the first one had.
    world.until_all_final().await;
    let before = world.seen().calls;
    fleet[0].signal("CONT").await;
    // Another message shows that it is awake: the other worker is gone.
    fleet[1].stop().await;
    let id = world
        .insert(testkit::peer(serde_json::json!({"payload": "next"})))
        .await;
    let row = world.until_final(id).await;
    assert_eq!(row.claimed_by.as_deref(), Some("worker-0"));
    assert_eq!(
        world.seen().calls,
        before + 1,
        "only the new one was called"
    );
    assert_eq!(world.count("status = 'message_sent'").await, 201);
    let worst = world.seen().apps[APP_ID].worst_sliding_second;
    assert!(worst <= 100, "{worst} calls in a second");
}
