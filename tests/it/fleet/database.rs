//! Outages of the database, cut connections and locked rows.

use std::time::Duration;

use harness::{PATIENCE, Postgres, World, ask, peer, slow_api};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_and_comes_back_costs_no_message_and_no_outcome() {
    let mut postgres = Postgres::start().await;
    let world = World::on(&postgres, slow_api(100)).await;
    world.insert_many(500).await;
    // A long lease lets the worker record outcomes late. A short one ends a claim whose response was lost.
    let mut worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "5s")
        .env("WORKER_LEASE", "8s")
        .start();
    world.until_accepted(100).await;
    postgres.cluster.crash().await.expect("down");
    let called = world.seen().calls;
    // The worker sends its claimed messages, and can claim no more.
    worker.until_logged("record_failed").await;
    postgres.cluster.restart().await.expect("up again");
    world.until_all_sent(500).await;
    assert!(worker.is_running());
    assert!(called < 500, "the crash came too late for this test");
    // The worker kept the outcomes during the outage.
    world.assert_no_repeats(500);
}

#[tokio::test]
async fn an_outage_that_outlasts_the_leases_repeats_no_call_whose_outcome_is_known() {
    let mut postgres = Postgres::start().await;
    let world = World::on(&postgres, slow_api(500)).await;
    world.insert_many(100).await;
    let _worker = world.worker().short_leases().start();
    world.until_accepted(20).await;
    postgres.cluster.crash().await.expect("down");
    // Longer than the leases.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    postgres.cluster.restart().await.expect("up again");
    world.until_all_sent(100).await;
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test]
async fn a_row_that_a_client_has_locked_holds_up_no_other() {
    let world = World::with(slow_api(300)).await;
    world.insert_many(30).await;
    let _worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "2s")
        .env("WORKER_LEASE", "3s")
        .start();
    world.until_accepted(5).await;
    let mut client = world.pool.begin().await.expect("a transaction");
    let query = "select id from signaling.outbox where status = 'pending' and claim_id is not null
                 limit 1 for update";
    let locked: i64 = ask(&mut client, query).await;
    world.until_count(1, "status = 'pending'").await;
    client.commit().await.expect("given free");
    assert_eq!(world.until_final(locked).await.status, "message_sent");
    // The lease of the locked row may have ended before the worker could record its outcome.
    assert!(world.seen().duplicates <= 1);
}

/// More rows than one statement of the recorder has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_locked_rows_hold_up_no_other() {
    let world = World::with(slow_api(1_000)).await;
    world.insert_many(450).await;
    let _worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "2s")
        .env("WORKER_LEASE", "60s")
        .start();
    let mut client = world.pool.begin().await.expect("a transaction");
    let lock =
        "select from signaling.outbox where status = 'pending' and claim_id is not null for update";
    let mut locked = 0;
    let are_locked = async || {
        let rows = sqlx::query(lock).execute(&mut *client).await;
        locked = rows.expect("locked").rows_affected();
        locked > 250
    };
    world.until("hundreds are sent", PATIENCE, are_locked).await;
    // The API responds after a second, and the recorder can't write these outcomes. This message comes after them.
    let id = world.insert(peer(json!({"payload": "free"}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    let waiting = world.count("status = 'pending'").await;
    assert!(waiting > 250, "{waiting} of {locked}");
    client.commit().await.expect("given free");
    world.until_all_final().await;
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_connections_are_cut_goes_on() {
    let world = World::with(slow_api(20)).await;
    let mut worker = world.worker().short_leases().start();
    world.insert_many(400).await;
    for accepted in [50, 150, 250] {
        world.until_accepted(accepted).await;
        assert!(world.terminate_workers().await > 0);
    }
    world.until_all_sent(400).await;
    assert!(worker.is_running());
    let explained: i64 = world
        .ask("select count(distinct message_id) from signaling.attempt where outcome in ('lost', 'ambiguous')")
        .await;
    let repeated = world.seen().calls - 400;
    assert!(
        repeated <= explained.unsigned_abs(),
        "{repeated} repeated, {explained} explained"
    );
}

#[tokio::test]
async fn a_lost_listener_is_replaced() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    world.terminate_workers().await;
    worker.until_logged("listener_lost").await;
    // The worker finds messages without its listener.
    world.deliver(json!({})).await;
    world
        .until_true(
            "select exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker' and query ilike 'listen%')",
        )
        .await;
    world.deliver(json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_starts_while_its_database_is_away_waits_for_it() {
    let mut postgres = Postgres::start().await;
    let world = World::on(&postgres, slow_api(0)).await;
    let id = world.insert(peer(json!({}))).await;
    postgres.cluster.crash().await.expect("down");
    let mut worker = world.worker().start();
    worker.until_logged("startup_delayed").await;
    postgres.cluster.restart().await.expect("up again");
    assert_eq!(world.until_final(id).await.status, "message_sent");

    // A worker that waits for its database obeys SIGTERM.
    postgres.cluster.crash().await.expect("down");
    let mut waiting = world.worker().start();
    waiting.until_logged("startup_delayed").await;
    waiting.stop().await;
    assert!(worker.is_running());
    postgres.cluster.restart().await.expect("up again");
    worker.stop().await;
}
