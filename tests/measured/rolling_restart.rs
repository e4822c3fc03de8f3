//! A fleet whose workers are replaced one after the other.

use harness::{World, slow_api};

/// Calls take a second, so hundreds of calls are always in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_repeats_no_call_and_keeps_half_of_the_pace() {
    const MESSAGES: u64 = 5_000;
    const AT_FULL_RATE: u64 = 1_000;
    /// Calls in a second.
    const HALF_PACE: usize = 245;
    let world = World::alone(slow_api(1_000)).await;
    world.insert_many(5_000).await;
    let start = |name: &str| world.worker().env("WORKER_NAME", name).start();
    let mut fleet = ["a", "b", "c"].map(start);
    world.until_accepted(AT_FULL_RATE).await;
    for (worker, next) in fleet.iter_mut().zip(["d", "e", "f"]) {
        worker.stop().await;
        *worker = start(next);
        let claimed =
            format!("select exists (select from signaling.outbox where claimed_by = '{next}')");
        world.until_true(&claimed).await;
    }
    let calls = world.seen().calls;
    assert!(calls < MESSAGES, "the last restart came too late");
    world.until_all_sent(5_000).await;
    world.assert_no_repeats(MESSAGES);
    assert_eq!(world.count_attempts("true").await, 0);
    let peak: i64 = world
        .ask("select signaling.peak_rate('default', '-infinity', 'infinity')")
        .await;
    assert!(peak <= 500, "{peak} calls started in a second");
    // Before that, each of the first workers waits for the response to its first call.
    let calls = world.simulator.ledger().calls_after(AT_FULL_RATE);
    let longest_us = calls
        .windows(HALF_PACE)
        .map(|window| window[HALF_PACE - 1].at_us - window[0].at_us)
        .max()
        .expect("many calls");
    println!("{HALF_PACE} calls took {longest_us} µs at most");
    assert!(longest_us <= 1_000_000);
}
