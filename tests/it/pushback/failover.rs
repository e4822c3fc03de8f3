//! Another host of the API, for when the first one can't be connected or answers 502 to 504.

use std::time::Duration;

use serde_json::json;
use simulator::{Behaviour, Simulator, SimulatorConfig};

use super::until_lane;
use testkit::{API_KEY, API_SECRET, PATIENCE, Worker, World, basic, peer};
use testkit::{slow_api, warm_up};

/// Longer than the worker lets pass before it looks for the first host again.
const LOOKS_FOR_FIRST_HOST: Duration = Duration::from_secs(25);
/// Longer than the worker waits after a trial that failed.
const TRIES_FIRST_HOST_AGAIN: Duration = Duration::from_secs(45);

async fn simulator(bind: Option<std::net::SocketAddr>) -> Simulator {
    let defaults = SimulatorConfig::default();
    Simulator::start(SimulatorConfig {
        bind: bind.unwrap_or(defaults.bind),
        behaviour: Behaviour {
            credentials: basic(API_KEY, API_SECRET),
            ..Behaviour::default()
        },
        ..defaults
    })
    .await
    .expect("a simulator")
}

fn worker(world: &World, first: &Simulator, second: &Simulator) -> Worker {
    let both = format!("{},{}", first.base_url(), second.base_url());
    world.worker().env("AGORA_BASE_URL", &both)
}

fn set_faults(simulator: &Simulator, rules: &[&str]) {
    let rules = rules.iter().map(|rule| rule.parse().expect("a fault"));
    simulator.set_faults(rules.collect()).expect("faults");
}

/// Sends one message after the other until `holds`; returns how many.
async fn send_until(
    world: &World,
    what: &str,
    deadline: Duration,
    mut holds: impl FnMut() -> bool,
) -> i64 {
    let mut sent = 0;
    world
        .until(what, deadline, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let payload = format!("one by one, {sent} until {what}");
            let id = world.insert(peer(json!({"payload": payload}))).await;
            world.until_final(id).await;
            sent += 1;
            holds()
        })
        .await;
    sent
}

fn calls(simulator: &Simulator) -> u64 {
    simulator.ledger().summary().calls
}

#[tokio::test]
async fn a_host_that_can_not_be_reached_is_replaced_by_the_next_one_until_it_is_back() {
    let world = World::new().await;
    let first = simulator(None).await;
    first.stop().await;
    world.insert_many(50).await;
    let worker = worker(&world, &first, &world.simulator).start();
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        50,
        "a host that can't be reached costs no attempt"
    );
    assert_eq!(world.seen().accepted, 50);
    worker.until_logged("host_changed").await;

    let first = simulator(Some(first.address())).await;
    let what = "the first host is called again";
    let sent = 50 + send_until(&world, what, LOOKS_FOR_FIRST_HOST, || calls(&first) > 0).await;
    worker.until_logged("host_restored").await;
    let on_second = world.seen().calls;
    world.insert_many(20).await;
    world.until_all_final().await;
    assert_eq!(world.seen().calls, on_second, "all go to the first host");
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        sent + 20
    );
}

#[tokio::test]
async fn a_host_is_not_left_for_other_answers_or_for_fewer_than_three_503s() {
    let world = World::new().await;
    let second = simulator(None).await;
    world.set_faults(&["500"]);
    world.insert_many(30).await;
    let _worker = worker(&world, &world.simulator, &second).start();
    until_lane(&world, "hold = 'unavailable' and hold_probes >= 2").await;
    world.set_faults(&["401:count=1", "429:count=1", "503:count=2"]);
    world
        .execute("update signaling.lane set hold_probes = 0, hold_until = clock_timestamp()")
        .await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 30);
    assert_eq!(calls(&second), 0);
    assert_eq!(world.seen().accepted, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_in_the_middle_loses_no_message() {
    let world = World::new().await;
    let second = simulator(None).await;
    let worker = worker(&world, &world.simulator, &second).start();
    warm_up(&world).await;
    world.insert_many(300).await;
    world.until_accepted(80).await;
    world.simulator.stop().await;
    world.until_all_final().await;
    worker.until_logged("host_changed").await;
    assert_eq!(world.count("status = 'message_sent'").await, 301);
    assert!(calls(&second) > 50, "{} calls", calls(&second));
    let unexplained = world
        .count("attempts > 1 and not exists (select from signaling.attempt where message_id = outbox.id)")
        .await;
    assert_eq!(unexplained, 0);
    let attempts: i64 = world
        .ask("select sum(attempts) from signaling.outbox")
        .await;
    assert!(attempts <= 361, "{attempts} attempts for 301 messages");
}

#[tokio::test]
async fn a_host_that_answers_502_is_left_until_one_attempt_finds_it_well() {
    let world = World::new().await;
    let first = simulator(None).await;
    set_faults(&first, &["502"]);
    world.insert_many(50).await;
    let worker = worker(&world, &first, &world.simulator).start();
    world.until_all_final().await;
    worker.until_logged("host_changed").await;
    assert_eq!(world.count("status = 'message_sent'").await, 50);
    let before = calls(&first);
    assert!((3..=8).contains(&before), "{before} calls");

    let what = "one attempt tries the first host";
    let is_tried = || calls(&first) > before;
    let mut sent = 50 + send_until(&world, what, LOOKS_FOR_FIRST_HOST, is_tried).await;
    world.insert_many(50).await;
    world.until_all_final().await;
    sent += 50;
    assert_eq!(calls(&first), before + 1, "exactly one attempt");
    assert_eq!(worker.logged("host_restored"), 0);

    set_faults(&first, &[]);
    let what = "the first host serves again";
    let is_back = || worker.logged("host_restored") > 0;
    sent += send_until(&world, what, TRIES_FIRST_HOST_AGAIN, is_back).await;
    let on_second = world.seen().calls;
    world.insert_many(20).await;
    world.until_all_final().await;
    assert_eq!(world.seen().calls, on_second, "all go to the first host");
    assert_eq!(
        world.count("status = 'message_sent'").await,
        sent + 20,
        "a 502 fails no message"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_begins_to_answer_502_costs_the_calls_under_way() {
    let world = World::with(slow_api(50)).await;
    let second = simulator(None).await;
    let worker = worker(&world, &world.simulator, &second).start();
    warm_up(&world).await;
    world.insert_many(1_000).await;
    world.until_accepted(300).await;
    world.set_faults(&["502"]);
    world.until_all_final().await;
    worker.until_logged("host_changed").await;
    assert_eq!(world.count("status = 'message_sent'").await, 1_001);
    let failed: i64 = world.ask("select count(*) from signaling.attempt").await;
    // With 490 calls a second of 50 ms, 25 are under way.
    assert!((3..=60).contains(&failed), "{failed} failed attempts");
}

#[tokio::test]
async fn where_all_hosts_answer_504_the_first_that_recovers_is_found() {
    let world = World::new().await;
    let (first, second) = (simulator(None).await, simulator(None).await);
    set_faults(&first, &["504"]);
    set_faults(&second, &["504"]);
    world.insert_many(50).await;
    let _worker = worker(&world, &first, &second).start();
    until_lane(&world, "hold = 'unavailable'").await;
    let probe_soon = async || {
        world
            .execute(
                "update signaling.lane set hold_until = clock_timestamp() where hold is not null",
            )
            .await;
    };
    world
        .until("each host has had a second turn", PATIENCE, async || {
            probe_soon().await;
            calls(&first) > 3 && calls(&second) > 3
        })
        .await;
    set_faults(&second, &[]);
    world
        .until("all are sent", PATIENCE, async || {
            probe_soon().await;
            world.count("status = 'pending'").await == 0
        })
        .await;
    assert_eq!(world.count("status = 'message_sent'").await, 50);
    assert_eq!(second.ledger().summary().accepted, 50);
}

#[tokio::test]
async fn where_no_host_can_be_reached_the_lane_breaks() {
    let world = World::new().await;
    let (first, second) = (simulator(None).await, simulator(None).await);
    first.stop().await;
    second.stop().await;
    world.insert_many(50).await;
    let _worker = worker(&world, &first, &second).start();
    until_lane(&world, "hold = 'unavailable'").await;
    // The second one comes back, and is enough.
    let second = simulator(Some(second.address())).await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 50);
    assert_eq!(second.ledger().summary().accepted, 50);
}
