//! Another host of the API, for when the first one can't be reached.

use std::time::Duration;

use serde_json::json;
use simulator::{Behaviour, Simulator, SimulatorConfig};

use super::until_lane;
use testkit::warm_up;
use testkit::{API_KEY, API_SECRET, Worker, World, basic, peer};

/// Longer than the worker lets pass before it looks for the first host again.
const LOOKS_FOR_FIRST_HOST: Duration = Duration::from_secs(25);

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
    let mut sent = 50;
    world
        .until(
            "the first host is called again",
            LOOKS_FOR_FIRST_HOST,
            async || {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let id = world
                    .insert(peer(
                        json!({"payload": format!("message {sent} of one by one")}),
                    ))
                    .await;
                world.until_final(id).await;
                sent += 1;
                calls(&first) > 0
            },
        )
        .await;
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
async fn what_a_host_answers_is_no_reason_to_call_another() {
    let world = World::new().await;
    let second = simulator(None).await;
    world.set_faults(&["500"]);
    world.insert_many(30).await;
    let _worker = worker(&world, &world.simulator, &second).start();
    until_lane(&world, "hold = 'unavailable' and hold_probes >= 2").await;
    world.set_faults(&["401:count=1", "429:count=1", "503:count=1"]);
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
