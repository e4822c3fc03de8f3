//! The limit that all workers share.

use harness::{APP_ID, SchedulerStalls, World, fleet};
use simulator::SimulatorConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_four_stays_within_the_limit_and_sends_no_message_twice() {
    let world = World::alone(SimulatorConfig::default()).await;
    let stalls = SchedulerStalls::watch();
    let _fleet = fleet(4, || world.worker()).await;
    world.insert_many(1_500).await;
    world.until_all_final().await;

    world.assert_sent_once(1_500).await;
    let app = &world.seen().apps[APP_ID];
    assert_eq!((app.calls, app.accepted), (1_500, 1_500));
    world.assert_kept_limit(500, &stalls).await;
    // A fleet without faults uses the limit.
    assert!(app.calls_per_s() > 350.0, "{} calls/s", app.calls_per_s());
    let workers: i64 = world
        .ask("select count(distinct claimed_by) from signaling.outbox")
        .await;
    assert!(workers > 1, "one worker did it all");
}
