//! One message, one destination or one worker at fault, and how the others fare: at the full rate of 500 calls a second.

use serde_json::json;
use simulator::{Call, SimulatorConfig};
use tempfile::TempDir;
use testkit::{
    APP_ID, PATIENCE, Running, Worker, World, api_with_limit, fleet, peer, warm_up, write,
};

use crate::certificates::Authority;

/// The pace of one app without a fault, in calls a second.
const PACE: f64 = 490.0;
/// The others are measured from so long after the fault on, in µs.
const FROM_US: u64 = 5_000_000;

/// The accepted messages a second to destinations other than these, from 5 s after the first call on until the last
/// such message.
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

fn assert_share(pace: f64, share: f64) {
    eprintln!("the others go at {pace:.0} a second");
    assert!(pace >= share * PACE, "the others go at {pace:.0} a second");
}

/// Failed calls by the workers' own account, whether or not they reached the API.
async fn failed_calls(world: &World) -> i64 {
    world.ask("select count(*) from signaling.attempt").await
}

async fn until_others_sent(world: &World, count: i64) {
    world
        .until("the others are sent", PATIENCE, async || {
            world.count("status = 'message_sent'").await >= count
        })
        .await;
}

/// Inserts one message to `bad`, and so many to others.
async fn insert_one_bad(world: &World, others: i32) -> i64 {
    let bad = world.insert(peer(json!({"destination": "bad"}))).await;
    world.insert_many(others).await;
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_always_throttled_slows_no_other() {
    let world = World::alone(SimulatorConfig::default()).await;
    world.set_faults(&["429:destination=bad"]);
    let bad = insert_one_bad(&world, 6_000).await;
    let _worker = fleet(1, || world.worker()).await;
    until_others_sent(&world, 6_000).await;
    assert_share(pace_of_others(&world, "bad"), 0.9);
    let row = world.until_final(bad).await;
    assert_eq!(row.status, "failed");
    let charged: i64 = world
        .ask("select count(*) from signaling.attempt where charged and fault = 'destination'")
        .await;
    assert_eq!(charged, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_always_forbidden_holds_no_other() {
    let world = World::alone(SimulatorConfig::default()).await;
    world.set_faults(&["403:destination=bad"]);
    let bad = insert_one_bad(&world, 6_000).await;
    let _worker = fleet(1, || world.worker()).await;
    until_others_sent(&world, 6_000).await;
    assert_share(pace_of_others(&world, "bad"), 0.9);
    let row = world.until_final(bad).await;
    assert_eq!((&*row.status, row.attempts), ("failed", 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_that_are_gone_hold_no_other() {
    let world = World::alone(SimulatorConfig::default()).await;
    world.set_faults(&["408:destination=gone-"]);
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, wait_for_ack)
             select 'alice', 'gone-' || n, 'gone ' || n, true from generate_series(1, 200) as n",
        )
        .await;
    world.insert_many(5_000).await;
    let _worker = fleet(1, || world.worker()).await;
    until_others_sent(&world, 5_000).await;
    assert_share(pace_of_others(&world, "gone-"), 0.7);
}

/// A healthy worker, and beside it a sick one, with 10,000 messages.
async fn beside(world: &World, sick: impl FnOnce(Worker) -> Worker) -> (Vec<Running>, Running) {
    let healthy = fleet(1, || world.worker()).await;
    warm_up(world).await;
    let sick = sick(world.worker()).env("WORKER_NAME", "sick").start();
    sick.until_logged("worker_started").await;
    world.insert_many(6_000).await;
    (healthy, sick)
}

/// Before it stepped aside. After that it tries at most ten times a minute.
async fn failed_calls_of_the_sick(world: &World) -> i64 {
    world
        .ask(
            "select count(*) from signaling.attempt
             where claimed_by = 'sick' and fault <> 'worker'",
        )
        .await
}

async fn assert_steps_aside(world: &World, sick: &Running) {
    until_others_sent(world, 6_001).await;
    sick.until_logged("worker_stepped_aside").await;
    let failed = failed_calls_of_the_sick(world).await;
    eprintln!("{failed} failed calls");
    assert!(failed <= 10, "{failed} failed calls");
    let holds: i64 = world
        .ask(
            "select count(*) from signaling.lane where hold is not null or released_at is not null",
        )
        .await;
    assert_eq!(holds, 0, "held");
    assert_eq!(world.count("attempts > 1").await, 0, "charged");
    assert_share(pace_of_others(world, "nobody"), 0.9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_api_address_is_dead_slows_no_other() {
    let world = World::alone(SimulatorConfig::default()).await;
    let (_healthy, sick) = beside(&world, |worker| {
        worker.env("AGORA_BASE_URL", "http://127.0.0.1:9")
    })
    .await;
    assert_steps_aside(&world, &sick).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_an_old_secret_slows_no_other() {
    let world = World::alone(SimulatorConfig::default()).await;
    let (_healthy, sick) = beside(&world, |worker| {
        worker.env("AGORA_API_SECRET", "an-old-secret")
    })
    .await;
    assert_steps_aside(&world, &sick).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_fails_half_of_all_calls_at_random_gets_nearly_all_messages() {
    let world = World::alone(SimulatorConfig::default()).await;
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
    // Ten failures in a row are the fate of one message in 1,024: three of these, and more than twelve once in 100,000
    // runs.
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
async fn wrong_credentials_everywhere_cost_few_calls_and_no_message() {
    for messages in [1_000, 3] {
        let world = World::alone(SimulatorConfig::default()).await;
        let right = world.simulator.config().credentials;
        world.set_credentials(testkit::basic("another", "secret"));
        let calls_before = world.seen().calls;
        world.insert_many(messages).await;
        let fleet = fleet(2, || world.worker()).await;
        world
            .until("held", PATIENCE, async || {
                world
                    .ask::<bool>(
                        "select coalesce(hold = 'unauthorized', false) from signaling.lane",
                    )
                    .await
            })
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        let calls = world.seen().calls - calls_before;
        eprintln!("{calls} calls");
        assert!(calls < 20, "{calls} calls");
        assert_eq!(world.count("attempts > 0 and status = 'pending'").await, 0);
        world.set_credentials(right);
        world.until_all_final().await;
        assert_eq!(world.count("attempts > 1").await, 0);
        drop(fleet);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_each_fail_once_are_sent_soon() {
    let world = World::alone(SimulatorConfig::default()).await;
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
    let world = World::alone(SimulatorConfig::default()).await;
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
    let world = World::alone(SimulatorConfig::default()).await;
    let _fleet = fleet(4, || world.worker()).await;
    warm_up(&world).await;
    world.set_faults(&["500"]);
    world.insert_many(3_000).await;
    world
        .until("held", PATIENCE, async || {
            world
                .ask::<bool>("select coalesce(hold_probes >= 4, false) from signaling.lane")
                .await
        })
        .await;
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
    let attempts = failed_calls(&world).await;
    assert!(attempts <= 300, "{attempts} failed calls");
    assert_eq!(world.count("status = 'message_sent'").await, 3_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_silent_gets_no_more_than_the_calls_of_two_seconds() {
    let world = World::alone(SimulatorConfig::default()).await;
    let _worker = fleet(1, || world.worker()).await;
    world.insert_many(1_000).await;
    world.until_all_final().await;
    world.set_faults(&["hang"]);
    let calls_before = world.seen().calls;
    world.insert_many(3_000).await;
    world
        .until(
            "calls time out, and the app is held",
            PATIENCE,
            async || {
                world
                    .ask::<bool>("select coalesce(hold = 'unavailable', false) from signaling.lane")
                    .await
            },
        )
        .await;
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
    let world = World::alone(SimulatorConfig {
        tls: Some(files),
        ..SimulatorConfig::default()
    })
    .await;
    let ca_file = write(directory.path(), "ca.pem", &ca.pem());
    let ca_file = ca_file.to_str().expect("a path");
    let healthy = fleet(1, || world.worker().env("AGORA_CA_FILE", ca_file)).await;
    warm_up(&world).await;
    let sick = world.worker().env("WORKER_NAME", "sick").start();
    sick.until_logged("worker_started").await;
    world.insert_many(6_000).await;
    assert_steps_aside(&world, &sick).await;
    drop(healthy);
}
