//! A worker whose process is suspended.

use std::time::Duration;

use harness::{World, api_with_limit, fleet};

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
    let worst = world.busiest_second();
    assert!(worst <= 200, "{worst} calls in a second");
    let late = "claimed_by = 'worker-0' and sent_at > (select max(sent_at) - interval '1 s' from signaling.outbox)";
    assert!(world.count(late).await > 0, "the worker takes part again");
}
