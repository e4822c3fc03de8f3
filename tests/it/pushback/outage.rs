//! An API that is unreachable or answers every call with an error.

use harness::{PATIENCE, World, fleet};

const MESSAGES: i64 = 300;

async fn until_probed(world: &World, probes: i32) {
    let condition = format!("hold = 'unavailable' and hold_probes >= {probes}");
    world.until_lane(&condition).await;
}

/// Waits until no more than the probe is claimed, and asserts that few messages were sent before.
async fn until_given_back(world: &World) {
    world
        .until("messages are given back", PATIENCE, async || {
            let claimed = "status = 'pending' and claim_id is not null";
            world.count(claimed).await <= 1
        })
        .await;
    let unsent = world
        .count("status = 'pending' and attempts = 0 and error is null")
        .await;
    assert!(unsent >= 240, "only {unsent} were never sent");
}

/// Waits until all messages are sent. Few of them have been charged for a failed attempt.
async fn assert_all_sent_for_little(world: &World) {
    world.until_all_sent(MESSAGES + 1).await;
    let attempts: i64 = world
        .ask("select sum(attempts) from signaling.outbox")
        .await;
    assert!(attempts * 10 <= MESSAGES * 12, "{attempts} attempts");
    world.until_lane("hold is null and hold_until is null and hold_since is null and hold_reason is null and hold_probes = 0",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_api_costs_no_message() {
    let mut world = World::new().await;
    let _fleet = fleet(3, || world.worker()).await;
    world.assert_sends().await;
    world.simulator.stop().await;
    world.insert_many(300).await;
    until_probed(&world, 2).await;

    let calls = world.count_attempts("true").await;
    assert!(calls < 60, "{calls} calls during the outage");
    until_given_back(&world).await;
    let status = world.run(&["status"]).await;
    assert!(status.contains("unavailable since"), "{status}");

    world.restart_api().await;
    assert_all_sent_for_little(&world).await;
    let seen = world.seen();
    assert_eq!((seen.accepted, seen.duplicates), (301, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_answers_500_fails_no_message_and_is_probed_every_four_seconds() {
    let world = World::new().await;
    let _fleet = fleet(3, || world.worker()).await;
    world.assert_sends().await;
    world.set_faults(&["500"]);
    world.insert_many(300).await;
    until_probed(&world, 2).await;
    let reason: String = world.lane("hold_reason").await;
    assert!(reason.contains("500"), "{reason}");
    until_given_back(&world).await;
    let (before, probes): (u64, i32) = (world.seen().calls, world.lane("hold_probes").await);
    until_probed(&world, probes + 2).await;
    // A probe may have been in flight when the test began to count.
    let calls = world.seen().calls - before;
    assert!((2..=3).contains(&calls), "{calls} calls for two probes");

    // The lane looks as after an outage of hours.
    world
        .set_lane("hold_probes = 1000, hold_until = clock_timestamp()")
        .await;
    until_probed(&world, 1001).await;
    let pause: f64 = world
        .lane("extract(epoch from hold_until - clock_timestamp())::float8")
        .await;
    assert!(pause > 2.0 && pause <= 4.0, "the next call is in {pause} s");
    let calls = world.seen().calls;
    assert!(calls < 60, "{calls} calls during the outage");

    world.set_faults(&[]);
    world.set_lane("hold_until = clock_timestamp()").await;
    assert_all_sent_for_little(&world).await;
    assert_eq!(world.seen().duplicates, 0);
}
