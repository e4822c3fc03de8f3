//! Connections that reach their maximum age, or that the network drops while they are idle.

use std::time::Duration;

use harness::{PATIENCE, Running, World, slow_api, until};

use crate::database_proxy::{DatabaseProxy, Network};

/// Events of a database that has failed.
const FAILURES: [&str; 4] = [
    "database_failed",
    "record_failed",
    "stats_failed",
    "queue_counts_failed",
];

fn assert_no_failure(worker: &Running) {
    for event in FAILURES {
        assert_eq!(worker.logged(event), 0, "{event}: {}", worker.stderr.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_idle_sessions_makes_no_statement_fail() {
    let world = World::with(slow_api(10)).await;
    world
        .alter_database("set idle_session_timeout = '1s'")
        .await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    for count in [50, 100] {
        world.insert_many(50).await;
        world.until_all_final().await;
        assert_eq!(world.count("status = 'message_sent'").await, count);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_no_failure(&worker);
    assert_eq!(worker.logged("listener_lost"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_at_their_greatest_age_and_no_statement_fails() {
    let world = World::with(slow_api(10)).await;
    let worker = world
        .worker()
        .env("WORKER_DATABASE_CONNECTION_AGE", "1s")
        .start();
    worker.until_logged("worker_started").await;
    let started: String = world.ask("select clock_timestamp()::text").await;
    let old = format!(
        "select exists (select from pg_stat_activity where datname = current_database()
         and application_name = 'signaling-worker' and backend_start < '{started}')"
    );
    let mut inserted = 0;
    world
        .until("every connection is replaced", PATIENCE, async || {
            world.insert_many(20).await;
            inserted += 20;
            !world.ask::<bool>(&old).await
        })
        .await;
    // Also the one that listens.
    world.until_idle().await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, inserted);
    assert_no_failure(&worker);
    assert_eq!(worker.logged("listener_lost"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_idle_connections_cost_no_failed_claim_and_no_late_record() {
    /// The network drops a connection after this silence.
    const FORGETS_AFTER: Duration = Duration::from_secs(3);
    let world = World::with(slow_api(10)).await;
    let firewall = DatabaseProxy::open(&world);
    firewall.set(Network::Forgetful(FORGETS_AFTER));
    let worker = world.worker().env("DATABASE_URL", &firewall.url).start();
    worker.until_logged("worker_started").await;
    for round in 1..=3 {
        world.insert_many(100).await;
        world.until_all_final().await;
        assert_eq!(world.count("status = 'message_sent'").await, round * 100);
        let dropped = firewall.dropped();
        let drops = async || firewall.dropped() > dropped;
        until("idle connections are dropped", PATIENCE, drops).await;
        tokio::time::sleep(FORGETS_AFTER).await;
    }
    // The connection that records was among them each time. A claim or a record on a dead connection would have failed.
    assert_no_failure(&worker);
    assert_eq!(world.count("attempts = 1").await, 300);
}
