//! The worker stops reusing a connection before a server, proxy or firewall closes it.

use std::time::Duration;

use simulator::{Simulator, SimulatorConfig};

use harness::{PATIENCE, Worker, World};

use crate::connect_proxy::ConnectProxy;

/// Sends messages one by one, each with a pause after it.
async fn send_each(world: &World, pauses_ms: &[u64]) {
    for pause_ms in pauses_ms {
        world.assert_sends().await;
        tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
    }
}

async fn assert_no_attempt_failed(world: &World) {
    let failed: i64 = world.ask("select count(*) from signaling.attempt").await;
    assert_eq!(failed, 0);
}

/// A worker that calls the API by a name, which this proxy resolves.
fn worker_behind(proxy: &ConnectProxy, world: &World) -> Worker {
    world
        .worker()
        .env("AGORA_BASE_URL", "http://api.test")
        .env("http_proxy", &proxy.url())
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_after_5_s_fails_no_call() {
    let world = World::new().await;
    world.simulator.behaviour().idle_close_ms = Some(5_000);
    // The worker does not learn of the close in time.
    let proxy = ConnectProxy::start(world.simulator.address).await;
    proxy.hide_close();
    let worker = worker_behind(&proxy, &world).env("WORKER_REQUEST_TIMEOUT", "2s");
    let _worker = worker.start();
    // Around the end of reuse, 4 s, and around the close, 5 s.
    let pauses_ms = [0, 300, 3_900, 4_000, 4_900, 4_950, 5_000, 100];
    send_each(&world, &pauses_ms).await;
    assert_no_attempt_failed(&world).await;
    let seen = world.seen();
    assert_eq!(seen.calls, 8);
    assert!((2..8).contains(&seen.connections), "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_after_its_response_is_not_used_again() {
    let world = World::new().await;
    world.simulator.behaviour().closes_connections = true;
    let _worker = world.worker().start();
    send_each(&world, &[0; 5]).await;
    assert_no_attempt_failed(&world).await;
    let seen = world.seen();
    assert_eq!((seen.calls, seen.connections >= 5), (5, true), "{seen:?}");
}

#[tokio::test]
async fn all_calls_go_to_the_new_address_of_a_name_within_the_maximum_age() {
    const MAX_AGE: Duration = Duration::from_secs(2);
    let world = World::new().await;
    let behaviour = world.simulator.behaviour().clone();
    let other = Simulator::start(SimulatorConfig {
        behaviour,
        ..SimulatorConfig::default()
    })
    .await
    .expect("another simulator");
    // The proxy resolves the name: its target stands for the address in the name service.
    let proxy = ConnectProxy::start(world.simulator.address).await;
    let _worker = worker_behind(&proxy, &world)
        .env("WORKER_CONNECTION_MAX_AGE", "2s")
        .env("WORKER_RATE", "50")
        .start();
    world.assert_sends().await;
    world.insert_many(400).await;
    world.until_accepted(20).await;
    proxy.set_target(other.address);
    let changed_at_us = world.seen().at_us;
    world.until_all_final().await;

    let limit_us = changed_at_us + u64::try_from(MAX_AGE.as_micros()).expect("few") + 500_000;
    let last_at_us = world.seen().apps[harness::APP_ID].last_at_us;
    assert!(last_at_us > changed_at_us, "connections were reused");
    assert!(
        last_at_us < limit_us,
        "{last_at_us} is later than {limit_us}"
    );
    assert!(other.ledger().summary().calls > 100);
    assert_no_attempt_failed(&world).await;
}

#[tokio::test]
async fn a_busy_connection_is_replaced_at_its_maximum_age() {
    let world = World::new().await;
    let _worker = world
        .worker()
        .env("WORKER_CONNECTION_MAX_AGE", "1s")
        .env("WORKER_RATE", "20")
        .start();
    world.assert_sends().await;
    world.insert_many(100).await;
    let are_several = async || world.seen().connections >= 5;
    world
        .until("there are new connections", PATIENCE, are_several)
        .await;
    world.until_all_final().await;
    assert_no_attempt_failed(&world).await;
    let seen = world.seen();
    // Five seconds, in each of which every connection is replaced once or twice.
    assert!(seen.connections < seen.calls / 2, "{seen:?}");
}
