//! 429s: how the rate of a fleet follows them.

use std::time::Duration;

use testkit::{APP_ID, World, api_with_limit, fleet};

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
    let refused = calls
        .iter()
        .find(|call| call.status == Some(429))
        .expect("a refusal");
    let early: Vec<_> = calls
        .iter()
        .map(|call| call.at_us.saturating_sub(refused.at_us))
        .filter(|&after_us| after_us > IN_FLIGHT_US && after_us < 2_000_000)
        .collect();
    assert_eq!(early, [0_u64; 0], "µs after the refusal");
    let waited = calls
        .iter()
        .filter(|call| call.at_us > refused.at_us + IN_FLIGHT_US);
    let later: Vec<_> = waited.map(|call| call.at_us - refused.at_us).collect();
    assert!(later.len() > 50, "{} were to wait", later.len());
    assert!(later[0] < 3_500_000, "no call for {} µs", later[0]);
    world.assert_sent_once(501).await;
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_with_a_limit_of_500_settles_where_the_api_allows_100() {
    let world = World::alone(api_with_limit(100)).await;
    world.insert_many(2_000).await;
    let _fleet = fleet(2, || world.worker()).await;
    world.until_calls(1).await;
    tokio::time::sleep(Duration::from_secs(8)).await;

    let app = &world.seen().apps[APP_ID];
    let from = app.first_at_us + 4_000_000;
    let (mut calls, mut accepted, mut refused) = (0_u32, 0, 0);
    for call in world.simulator.ledger().calls() {
        if (from..from + 4_000_000).contains(&call.at_us) {
            calls += 1;
            accepted += u32::from(call.accepted);
            refused += u32::from(call.status == Some(429));
        }
    }
    assert!(
        f64::from(refused) < 0.05 * f64::from(calls),
        "{refused} of {calls} were answered 429"
    );
    assert!(accepted >= 280, "{accepted} of 400 were made use of");
    let charged = "attempts > 1 or status = 'failed'";
    assert_eq!(world.count(charged).await, 0);
}
