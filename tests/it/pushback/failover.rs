//! A second host of the API. The worker uses it while the first host refuses connections or answers 502 to 504.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use simulator::{Simulator, SimulatorConfig};

use harness::{API_KEY, API_SECRET, PATIENCE, Worker, World, basic, set_faults, slow_api};

/// Longer than the worker waits before it tries a failed host again.
const NEXT_TRY: Duration = Duration::from_secs(35);

/// Another simulated API that accepts the usual key. Without an address, a free port is taken.
async fn another_api(address: Option<SocketAddr>) -> Simulator {
    let mut config = SimulatorConfig::default();
    config.bind = address.unwrap_or(config.bind);
    config.behaviour.credentials = basic(API_KEY, API_SECRET);
    Simulator::start(config).await.expect("a simulator")
}

fn worker(world: &World, first: &Simulator, second: &Simulator) -> Worker {
    let both = format!("{},{}", first.base_url(), second.base_url());
    world.worker().env("AGORA_BASE_URL", &both)
}

/// Sends one message after the other until `holds` returns true. Returns the number of messages.
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
            world.deliver(json!({"payload": payload})).await;
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
async fn an_unreachable_host_is_replaced_by_the_next_one_until_it_is_back() {
    let world = World::new().await;
    let first = another_api(None).await;
    first.stop().await;
    world.insert_many(50).await;
    let worker = worker(&world, &first, &world.simulator).start();
    world.until_all_final().await;
    world.assert_sent_once(50).await;
    assert_eq!(world.seen().accepted, 50);
    worker.until_logged("host_changed").await;

    let first = another_api(Some(first.address)).await;
    let what = "the first host is called again";
    let sent = 50 + send_until(&world, what, NEXT_TRY, || calls(&first) > 0).await;
    worker.until_logged("host_restored").await;
    let on_second = world.seen().calls;
    world.insert_many(20).await;
    world.until_all_final().await;
    assert_eq!(world.seen().calls, on_second, "all go to the first host");
    world.assert_sent_once(sent + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_in_the_middle_loses_no_message() {
    let world = World::new().await;
    let second = another_api(None).await;
    let worker = worker(&world, &world.simulator, &second).start();
    world.assert_sends().await;
    world.insert_many(300).await;
    world.until_accepted(80).await;
    world.simulator.stop().await;
    world.until_all_sent(301).await;
    worker.until_logged("host_changed").await;
    assert!(calls(&second) > 50, "{} calls", calls(&second));
    let without_reason =
        "attempts > 1 and not exists (select from signaling.attempt where message_id = outbox.id)";
    assert_eq!(world.count(without_reason).await, 0);
    let attempts: i64 = world
        .ask("select sum(attempts) from signaling.outbox")
        .await;
    assert!(attempts <= 361, "{attempts} attempts for 301 messages");
}

#[tokio::test]
async fn a_host_that_answers_502_is_left_until_one_attempt_finds_it_well() {
    let world = World::new().await;
    let first = another_api(None).await;
    set_faults(&first, &["502"]);
    world.insert_many(50).await;
    let worker = worker(&world, &first, &world.simulator).start();
    world.until_all_sent(50).await;
    worker.until_logged("host_changed").await;
    let before = calls(&first);
    assert!((3..=8).contains(&before), "{before} calls");

    let what = "one attempt tries the first host";
    let is_tried = || calls(&first) > before;
    let mut sent = 50 + send_until(&world, what, NEXT_TRY, is_tried).await;
    world.insert_many(50).await;
    world.until_all_final().await;
    sent += 50;
    assert_eq!(calls(&first), before + 1, "exactly one attempt");
    assert_eq!(worker.logged("host_restored"), 0);

    set_faults(&first, &[]);
    let what = "the first host serves again";
    let is_back = || worker.logged("host_restored") > 0;
    sent += send_until(&world, what, NEXT_TRY, is_back).await;
    let on_second = world.seen().calls;
    world.insert_many(20).await;
    world.until_all_sent(sent + 20).await;
    assert_eq!(world.seen().calls, on_second, "all go to the first host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_begins_to_answer_502_costs_the_calls_under_way() {
    let world = World::with(slow_api(50)).await;
    let second = another_api(None).await;
    let worker = worker(&world, &world.simulator, &second).start();
    world.assert_sends().await;
    world.insert_many(1_000).await;
    world.until_accepted(300).await;
    world.set_faults(&["502"]);
    world.until_all_sent(1_001).await;
    worker.until_logged("host_changed").await;
    let failed = world.count_attempts("true").await;
    // With 490 calls a second of 50 ms, 25 are under way.
    assert!((3..=60).contains(&failed), "{failed} failed attempts");
}

#[tokio::test]
async fn where_all_hosts_answer_504_the_first_that_recovers_is_found() {
    let world = World::new().await;
    let (first, second) = (another_api(None).await, another_api(None).await);
    set_faults(&first, &["504"]);
    set_faults(&second, &["504"]);
    world.insert_many(50).await;
    let _worker = worker(&world, &first, &second).start();
    world.until_lane("hold = 'unavailable'").await;
    let change = "update signaling.lane set hold_until = clock_timestamp() where hold is not null";
    let probe_soon = async || world.execute(change).await;
    let have_had_two_turns = async || {
        probe_soon().await;
        calls(&first) > 3 && calls(&second) > 3
    };
    world
        .until("each host has two turns", PATIENCE, have_had_two_turns)
        .await;
    set_faults(&second, &[]);
    probe_soon().await;
    world.until_all_sent(50).await;
    assert_eq!(second.ledger().summary().accepted, 50);
}

#[tokio::test]
async fn where_no_host_can_be_reached_the_lane_is_held() {
    let world = World::new().await;
    let (first, second) = (another_api(None).await, another_api(None).await);
    first.stop().await;
    second.stop().await;
    world.insert_many(50).await;
    let _worker = worker(&world, &first, &second).start();
    world.until_lane("hold = 'unavailable'").await;
    let second = another_api(Some(second.address)).await;
    world.until_all_sent(50).await;
    assert_eq!(second.ledger().summary().accepted, 50);
}
