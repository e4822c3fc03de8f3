//! One message, one destination or one worker fails. The others keep the full rate of 500 calls a second.

use serde_json::json;
use simulator::Call;
use tempfile::TempDir;
use testkit::{APP_ID, PATIENCE, Running, Worker, World, api_with_limit, fleet, peer, write};

use crate::certificates::Authority;

/// The rate of one app without a fault, in calls a second.
const PACE: f64 = 490.0;
/// The measurement begins this long after the fault, in µs.
const FROM_US: u64 = 5_000_000;

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
    #[expect(
        clippy::cast_precision_loss,
        reason = "some thousand calls, some seconds"
    )]
    let pace = others.len() as f64 / ((last.at_us - first.at_us) as f64 / 1e6);
    pace
}

/// Sends messages to other destinations beside a fault of this destination, and asserts that they keep a share of the rate.
async fn assert_pace_beside(
    world: &World,
    destination: &str,
    others: i32,
    share: f64,
) -> Vec<Running> {
    world.insert_many(others).await;
    let worker = fleet(1, || world.worker()).await;
    world.until_sent(others.into()).await;
    assert_share(pace_of_others(world, destination), share);
    worker
}

fn assert_share(pace: f64, share: f64) {
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
    let charged: i64 = world
        .ask("select count(*) from signaling.attempt where charged and fault = 'destination'")
        .await;
    assert_eq!(charged, 10);
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
async fn receivers_that_are_gone_hold_no_other() {
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

/// Starts a healthy and a sick worker, and inserts 6,000 messages.
async fn beside(
    world: &World,
    healthy: impl Fn() -> Worker,
    sick: Worker,
) -> (Vec<Running>, Running) {
    let healthy = fleet(1, healthy).await;
    world.assert_sends().await;
    let sick = sick.env("WORKER_NAME", "sick").start();
    sick.until_logged("worker_started").await;
    world.insert_many(6_000).await;
    (healthy, sick)
}

/// The failed calls before the sick worker stepped aside. After that, it probes at most ten times a minute.
async fn failed_calls_of_the_sick(world: &World) -> i64 {
    world
        .ask(
            "select count(*) from signaling.attempt
             where claimed_by = 'sick' and fault <> 'worker'",
        )
        .await
}

async fn assert_steps_aside(world: &World, sick: &Running) {
    world.until_sent(6_001).await;
    sick.until_logged("worker_stepped_aside").await;
    let failed = failed_calls_of_the_sick(world).await;
    eprintln!("{failed} failed calls");
    assert!(failed <= 10, "{failed} failed calls");
    let was_held = "hold is not null or released_at is not null";
    assert!(!world.lane::<bool>(was_held).await);
    assert_eq!(world.count("attempts > 1").await, 0, "charged");
    assert_share(pace_of_others(world, "nobody"), 0.9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_a_dead_api_address_or_an_old_secret_slows_no_other() {
    for (variable, value) in [
        ("AGORA_BASE_URL", "http://127.0.0.1:9"),
        ("AGORA_API_SECRET", "an-old-secret"),
    ] {
        let world = World::alone(api_with_limit(500)).await;
        let sick = world.worker().env(variable, value);
        let (_healthy, sick) = beside(&world, || world.worker(), sick).await;
        assert_steps_aside(&world, &sick).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_fails_half_of_all_calls_at_random_gets_nearly_all_messages() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["500:share=0.5"]);
    world.insert_many(3_000).await;
    let _worker = fleet(1, || world.worker()).await;
    world.until_all_final().await;
    let failed = world.count("status = 'failed'").await;
    let calls = world.simulator.ledger().calls();
    let seconds = calls[5_000].at_us - calls[500].at_us;
    #[expect(clippy::cast_precision_loss, reason = "some seconds")]
    let pace = 4_500.0 / (seconds as f64 / 1e6);
    eprintln!("{failed} failed, {pace:.0} calls a second");
    // One message in 1,024 fails ten times in a row. Of 3,000, more than twelve fail in one run of 100,000.
    assert!(failed <= 12, "{failed} failed");
    assert!(pace >= 0.8 * 500.0, "{pace:.0} calls a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_below_the_limit_is_found_over_a_thousand_destinations() {
    let world = World::alone(api_with_limit(200)).await;
    world.insert_many(3_000).await;
    let _fleet = fleet(2, || world.worker()).await;
    world.until_accepted(2_200).await;
    let app = &world.seen().apps[APP_ID];
    let from = app.first_at_us + FROM_US;
    let calls = world.simulator.ledger().calls();
    let later: Vec<&Call> = calls.iter().filter(|call| call.at_us >= from).collect();
    let throttled = later.iter().filter(|call| call.status == Some(429)).count();
    let accepted = later.len() - throttled;
    #[expect(clippy::cast_precision_loss, reason = "some thousand calls")]
    let (share, pace) = (
        throttled as f64 / later.len() as f64,
        accepted as f64 / ((later[later.len() - 1].at_us - from) as f64 / 1e6),
    );
    eprintln!(
        "{:.1} % throttled, {pace:.0} accepted a second",
        share * 100.0
    );
    assert!(share < 0.03, "{share}");
    assert!(pace >= 0.8 * 200.0, "{pace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_each_fail_once_are_sent_soon() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["500:first_calls=1"]);
    world.insert_many(300).await;
    let begun = std::time::Instant::now();
    let _worker = fleet(1, || {
        world
            .worker()
            .env("WORKER_RETRY_BASE", "1s")
            .env("WORKER_RETRY_CAP", "5m")
    })
    .await;
    world.until_all_final().await;
    eprintln!("sent within {:?}", begun.elapsed());
    assert_eq!(world.count("status = 'message_sent'").await, 300);
    assert!(begun.elapsed().as_secs() <= 15, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_slow_to_acknowledge_takes_no_place_from_others() {
    let world = World::alone(api_with_limit(500)).await;
    world.set_faults(&["slow=10s:destination=slow"]);
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, wait_for_ack)
             select 'alice', case when n % 2 = 0 then 'slow' else 'user-' || n end, 'message ' || n, n % 2 = 0
             from generate_series(1, 10000) as n",
        )
        .await;
    let _worker = fleet(1, || world.worker()).await;
    world
        .until("the others are sent", PATIENCE, async || {
            world
                .count("status = 'message_sent' and destination <> 'slow'")
                .await
                >= 5_000
        })
        .await;
    assert_share(pace_of_others(&world, "slow"), 0.9);
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
    world.until_all_final().await;
    let attempts: i64 = world.ask("select count(*) from signaling.attempt").await;
    assert!(attempts <= 300, "{attempts} failed calls");
    assert_eq!(world.count("status = 'message_sent'").await, 3_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_silent_gets_no_more_than_the_calls_of_two_seconds() {
    let world = World::alone(api_with_limit(500)).await;
    let _worker = fleet(1, || world.worker()).await;
    world.insert_many(1_000).await;
    world.until_all_final().await;
    world.set_faults(&["hang"]);
    let calls_before = world.seen().calls;
    world.insert_many(3_000).await;
    world.until_lane("hold = 'unavailable'").await;
    let calls = world.seen().calls - calls_before;
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
    let trusting = || world.worker().env("AGORA_CA_FILE", ca_file);
    let (_healthy, sick) = beside(&world, trusting, world.worker()).await;
    assert_steps_aside(&world, &sick).await;
}
