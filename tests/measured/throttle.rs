//! 429s: how the rate of a fleet follows them.

use harness::{APP_ID, PATIENCE, World, api_with_limit, fleet};
use simulator::Call;

/// A call that arrives this soon after a 429 had an earlier slot.
const IN_FLIGHT_US: u64 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_worker_of_a_fleet_calls_before_retry_after_is_over() {
    let world = World::alone(api_with_limit(500)).await;
    let _fleet = fleet(3, || world.worker()).await;
    world.assert_sends().await;
    world.insert_many(500).await;
    world.until_accepted(150).await;
    world.set_faults(&["429:count=1,retry_after=2"]);
    world.until_all_final().await;

    let calls = world.simulator.ledger().calls();
    let refused = calls.iter().find(|call| call.status == Some(429));
    let refused_at_us = refused.expect("a refusal").at_us;
    let after_us = |call: &Call| call.at_us.checked_sub(refused_at_us + IN_FLIGHT_US);
    let mut later: Vec<_> = calls.iter().filter_map(after_us).collect();
    later.sort_unstable();
    assert!(later.len() > 50, "{} calls had to wait", later.len());
    let first_us = later[0] + IN_FLIGHT_US;
    assert!((2_000_000..3_500_000).contains(&first_us), "{first_us} µs");
    world.assert_sent_once(501).await;
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_settles_at_the_rate_that_the_api_allows() {
    for (allowed, throttled_share, used_share) in [(100, 0.05, 0.7), (200, 0.03, 0.8)] {
        let world = World::alone(api_with_limit(allowed)).await;
        world.insert_many(3_000).await;
        let _fleet = fleet(2, || world.worker()).await;
        world.until_calls(1).await;
        let from = world.seen().apps[APP_ID].first_at_us + 5_000_000;
        let four_seconds = from..from + 4_000_000;
        let are_over = async || world.seen().apps[APP_ID].last_at_us > four_seconds.end;
        world.until("they are over", PATIENCE, are_over).await;

        let (mut accepted, mut throttled) = (0_u32, 0_u32);
        for call in world.simulator.ledger().calls() {
            if four_seconds.contains(&call.at_us) {
                accepted += u32::from(call.accepted);
                throttled += u32::from(call.status == Some(429));
            }
        }
        let found = format!("{accepted} accepted and {throttled} throttled of {allowed} a second");
        eprintln!("{found}");
        let calls = f64::from(accepted + throttled);
        assert!(f64::from(throttled) < throttled_share * calls, "{found}");
        assert!(
            f64::from(accepted) >= used_share * f64::from(4 * allowed),
            "{found}"
        );
        let charged = "attempts > 1 or status = 'failed'";
        assert_eq!(world.count(charged).await, 0, "{allowed}");
    }
}
