//! A fleet whose workers are replaced one after the other.

use testkit::{PATIENCE, World, slow_api};

/// Calls that take a second, so that some hundreds of them are under way all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_at_full_rate_repeats_no_call_and_leaves_no_gap() {
    const MESSAGES: u64 = 5_000;
    const AT_FULL_RATE: u64 = 1_000;
    // How exactly the pace is kept is for others to test: a machine that stands still for 10 ms would spoil it.
    let mut api = slow_api(1_000);
    api.behaviour.limit = None;
    let world = World::alone(api).await;
    world.insert_many(5_000).await;
    let start = |name: &str| world.worker().env("WORKER_NAME", name).start();
    let mut fleet = ["a", "b", "c"].map(start);
    world.until_accepted(AT_FULL_RATE).await;
    for (worker, next) in fleet.iter_mut().zip(["d", "e", "f"]) {
        worker.stop().await;
        *worker = start(next);
        let has_called =
            format!("exists (select from signaling.outbox where claimed_by = '{next}')");
        world
            .until(
                "the new worker has claimed something",
                PATIENCE,
                async || world.ask(&format!("select {has_called}")).await,
            )
            .await;
    }
    assert!(
        world.seen().calls < MESSAGES,
        "it was over before all were restarted"
    );
    world.until_all_final().await;

    let seen = world.seen();
    assert_eq!((seen.calls, seen.accepted), (MESSAGES, MESSAGES));
    assert_eq!(seen.duplicates, 0);
    let attempts: i64 = world.ask("select count(*) from signaling.attempt").await;
    assert_eq!(attempts, 0);
    let peak: i64 = world
        .ask("select signaling.peak_rate('default', '-infinity', 'infinity')")
        .await;
    assert!(peak <= 500, "{peak} calls started in a second");
    // Before that, each worker of the first three has waited for the answer to its first call.
    let calls = world
        .simulator
        .ledger()
        .calls_after(AT_FULL_RATE, usize::MAX);
    let longest_gap_us = calls
        .windows(2)
        // Calls that arrive together may stand in the ledger the other way round.
        .map(|pair| pair[1].at_us.saturating_sub(pair[0].at_us))
        .max()
        .expect("many calls");
    println!("longest gap: {longest_gap_us} µs");
    assert!(
        longest_gap_us <= 1_000_000,
        "no call for {longest_gap_us} µs"
    );
}
