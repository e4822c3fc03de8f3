//! A burst of 429 responses.

use harness::{Running, World, fleet, slow_api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_429s_cuts_the_rate_once_costs_no_attempt_and_is_temporary() {
    // All calls of a burst start before the first response, so they share one cut.
    let world = World::with(slow_api(150)).await;
    let level = "info,signaling_worker=debug";
    let fleet = fleet(3, || world.worker().env("WORKER_LOG", level)).await;
    // A new worker sends few messages at a time, and its 429s would come one by one.
    world.insert_many(300).await;
    world.until_all_final().await;
    let cuts_of = |worker: &Running| worker.logged("lane_rate_cut");

    for (burst, rate) in [(1, 0.8), (2, 0.8 * 0.8)] {
        world.set_faults(&["429:count=20"]);
        world
            .execute(&format!(
                "insert into signaling.outbox (sender, destination, payload, max_attempts)
                 select 'alice', 'user-{burst}-' || n, 'burst {burst} ' || n, 1 from generate_series(1, 60) as n"
            ))
            .await;
        world.until_all_final().await;
        let cuts: usize = fleet.iter().map(cuts_of).sum();
        assert_eq!(cuts, burst, "one cut for a burst");
        let share: f64 = world
            .lane("signaling.present_rate(rate_per_s, rate_at, limit_per_s, rate_at) / signaling.slot_rate(limit_per_s)")
            .await;
        assert!(
            (rate * 0.99..=1.0).contains(&share),
            "cut {burst} leaves {share} of the full rate"
        );
        let is_recent = "throttled_at > clock_timestamp() - interval '20 s'";
        assert!(world.lane::<bool>(is_recent).await);
    }

    for worker in &fleet {
        // A worker logs only the first cut until the rate is restored.
        let restored = worker.logged("lane_rate_restored");
        assert!(worker.logged("lane_throttled") <= 1 + restored);
    }
    world.assert_sent_once(420).await;
    let throttled = "outcome = 'throttled' and http_status = 429 and attempt = 1";
    assert_eq!(world.count_attempts(throttled).await, 40);
    assert_eq!((world.seen().accepted, world.seen().duplicates), (420, 0));
    let is_back: bool = world.lane("signaling.present_rate(rate_per_s, rate_at, limit_per_s, throttled_at + interval '20 s')
         = signaling.slot_rate(limit_per_s)",
    )
    .await;
    assert!(is_back, "the lane is at its full rate again 20 s later");
}
