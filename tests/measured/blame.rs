//! One message, one destination or one worker fails. The others keep the full rate of 500 calls a second.

use harness::{Running, Worker, World, api_with_limit, fleet, peer, write};
use serde_json::json;
use simulator::Call;
use tempfile::TempDir;

use crate::certificates::Authority;

/// The rate of one app without a fault, in calls a second.
const PACE: f64 = 490.0;
/// The measurement begins this long after the fault, in µs.
const FROM_US: u64 = 5_000_000;

#[expect(
    clippy::cast_precision_loss,
    reason = "thousands of calls, some seconds"
)]
fn per_second(calls: usize, in_us: u64) -> f64 {
    calls as f64 / (in_us as f64 / 1e6)
}

/// The rate of accepted messages to destinations without this prefix, from 5 s after the first call on.
fn pace_of_others(world: &World, prefix: &str) -> f64 {
    let calls = world.simulator.ledger().calls();
    let begun = calls.first().expect("a call").at_us;
    let others: Vec<&Call> = calls
        .iter()
        .filter(|call| call.accepted && call.at_us >= begun + FROM_US)
        .filter(|call| !call.target.starts_with(prefix))
        .collect();
    let (Some(first), Some(last)) = (others.first(), others.last()) else {
        return 0.0;
    };
    per_second(others.len(), last.at_us - first.at_us)
}

/// Sends messages to other destinations than the one at fault, and asserts that they keep a share of the rate.
async fn assert_pace_beside(world: &World, at_fault: &str, others: i32, share: f64) -> Running {
    world.insert_many(others).await;
    let worker = world.worker().start();
    world.until_sent(others.into()).await;
    assert_pace_of_others(world, at_fault, share);
    worker
}

fn assert_pace_of_others(world: &World, at_fault: &str, share: f64) {
    let pace = pace_of_others(world, at_fault);
    eprintln!("the others go at {pace:.0} a second");
    assert!(pace >= share * PACE, "the others go at {pace:.0} a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_always_throttled_slows_no_other() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["429:destination=bad"]);
    let bad = world.insert(peer(json!({"destination": "bad"}))).await;
    let _worker = assert_pace_beside(&world, "bad", 6_000, 0.9).await;
    let row = world.until_final(bad).await;
    assert_eq!(row.status, "failed");
    let charged = "charged and fault = 'destination'";
    assert_eq!(world.count_attempts(charged).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_always_forbidden_holds_no_other() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["403:destination=bad"]);
    let bad = world.insert(peer(json!({"destination": "bad"}))).await;
    let _worker = assert_pace_beside(&world, "bad", 6_000, 0.9).await;
    let row = world.until_final(bad).await;
    assert_eq!((&*row.status, row.attempts), ("failed", 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipients_that_are_gone_hold_no_other() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["408:destination=gone-"]);
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, wait_for_ack)
             select 'alice', 'gone-' || n, 'gone ' || n, true from generate_series(1, 200) as n",
        )
        .await;
    let _worker = assert_pace_beside(&world, "gone-", 5_000, 0.7).await;
}

/// Asserts that a sick worker steps aside after a few calls, and that a healthy one sends the messages.
async fn assert_steps_aside(world: &World, sick: Worker, healthy: Worker) {
    let _healthy = healthy.start();
    world.assert_sends().await;
    let sick = sick.env("WORKER_NAME", "sick").start();
    sick.until_logged("worker_started").await;
    world.insert_many(6_000).await;
    world.until_sent(6_001).await;
    sick.until_logged("worker_stepped_aside").await;
    // After that, the worker probes at most ten times a minute.
    let before_that = "claimed_by = 'sick' and fault <> 'worker'";
    let failed = world.count_attempts(before_that).await;
    eprintln!("{failed} failed calls");
    assert!(failed <= 10, "{failed} failed calls");
    let was_held = "hold is not null or released_at is not null";
    assert!(!world.lane::<bool>(was_held).await);
    assert_eq!(world.count("attempts > 1").await, 0, "charged");
    assert_pace_of_others(world, "nobody", 0.9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_a_dead_api_address_or_an_old_secret_slows_no_other() {
    for (variable, value) in [
        ("AGORA_BASE_URL", "http://127.0.0.1:9"),
        ("AGORA_API_SECRET", "an-old-secret"),
    ] {
        let world = World::alone(api_with_limit(500)).await;
        let sick = world.worker().env(variable, value);
        assert_steps_aside(&world, sick, world.worker()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_fails_half_of_all_calls_at_random_gets_nearly_all_messages() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["500:share=0.5"]);
    world.insert_many(3_000).await;
    let _worker = world.worker().start();
    world.until_all_final().await;
    let failed = world.count("status = 'failed'").await;
    let calls = world.simulator.ledger().calls();
    let pace = per_second(4_500, calls[5_000].at_us - calls[500].at_us);
    eprintln!("{failed} failed, {pace:.0} calls a second");
    // One message in 1,024 fails ten times in a row. Of 3,000, more than twelve fail in one run of 100,000.
    assert!(failed <= 12, "{failed} failed");
    assert!(pace >= 0.8 * 500.0, "{pace:.0} calls a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_each_fail_once_are_sent_soon() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["500:first_calls=1"]);
    world.insert_many(300).await;
    let begun = std::time::Instant::now();
    let worker = world.worker().env("WORKER_RETRY_BASE", "1s");
    let _worker = worker.env("WORKER_RETRY_CAP", "5m").start();
    world.until_all_sent(300).await;
    let took = begun.elapsed();
    eprintln!("sent within {took:?}");
    assert!(took.as_secs() <= 15, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_that_is_slow_to_acknowledge_takes_no_place_from_others() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["slow=10s:destination=slow"]);
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, wait_for_ack)
             select 'alice', case when n % 2 = 0 then 'slow' else 'user-' || n end, 'message ' || n, n % 2 = 0
             from generate_series(1, 10000) as n",
        )
        .await;
    let _worker = world.worker().start();
    world
        .until_count(5_000, "status = 'message_sent' and destination <> 'slow'")
        .await;
    assert_pace_of_others(&world, "slow", 0.9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_dead_costs_few_calls_and_is_used_at_once_again() {
    let world = World::alone(api_with_limit(500)).await;
    let _fleet = fleet(4, || world.worker()).await;
    world.assert_sends().await;
    world.set_faults(&["500"]);
    world.insert_many(3_000).await;
    world.until_lane("hold_probes >= 4").await;
    let calls = world.seen().calls;
    eprintln!("{calls} calls until the fourth probe");
    assert!(calls < 60, "{calls} calls");
    world.set_faults(&[]);
    let accepted = world.seen().accepted;
    world.until_accepted(accepted + 1).await;
    let first = std::time::Instant::now();
    world.until_accepted(accepted + 500).await;
    eprintln!("500 messages {:?} after the first success", first.elapsed());
    assert!(first.elapsed().as_secs() < 5, "{:?}", first.elapsed());
    world.until_all_sent(3_001).await;
    let attempts = world.count_attempts("true").await;
    assert!(attempts <= 300, "{attempts} failed calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_silent_gets_no_more_than_the_calls_of_two_seconds() {
    let world = World::alone(api_with_limit(500)).await;
    let _worker = world.worker().start();
    world.insert_many(1_000).await;
    world.until_all_final().await;
    world.set_faults(&["hang"]);
    let before = world.seen().calls;
    world.insert_many(3_000).await;
    world.until_lane("hold = 'unavailable'").await;
    let calls = world.seen().calls - before;
    eprintln!("{calls} calls");
    // Two seconds at 490 a second, and one a second until the first ones time out.
    assert!(calls <= 980 + 100 + 15, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_trust_the_api_slows_no_other() {
    let directory = TempDir::new().expect("a directory");
    let ca = Authority::new("the CA of the tests");
    let files = ca.server("127.0.0.1").write(directory.path(), "server");
    let mut api = api_with_limit(500);
    api.tls = Some(files);
    let world = World::alone(api).await;
    let ca_file = write(directory.path(), "ca.pem", &ca.pem());
    let ca_file = ca_file.to_str().expect("a path");
    let trusting = world.worker().env("AGORA_CA_FILE", ca_file);
    assert_steps_aside(&world, world.worker(), trusting).await;
}
