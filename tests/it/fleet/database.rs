//! A database that goes away and comes back.

use std::time::Duration;

use serde_json::json;
use sqlx::Connection;

use testkit::{PATIENCE, Postgres, World, peer, slow_api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_and_comes_back_costs_no_message_and_no_outcome() {
    let mut postgres = Postgres::start().await;
    let world = World::on(&postgres, slow_api(100)).await;
    world.insert_many(500).await;
    // Long enough a lease for outcomes to be recorded late, short enough to wait for where a claim's answer was lost.
    let mut worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "5s")
        .env("WORKER_LEASE", "8s")
        .start();
    world.until_accepted(100).await;
    postgres.cluster.crash().await.expect("down");
    let called = world.seen().calls;
    // What has its slot is still called; then nothing more can be claimed.
    worker.until_logged("record_failed").await;
    postgres.cluster.restart().await.expect("up again");
    world.until_all_final().await;

    assert!(worker.is_running(), "it has gone on");
    assert!(called < 500, "the crash came too late for this test");
    assert_eq!(world.count("status = 'message_sent'").await, 500);
    let seen = world.seen();
    assert_eq!(
        (seen.calls, seen.duplicates),
        (500, 0),
        "outcomes were kept while the database was away"
    );
    drop(worker);
    world.pool.close().await;
    postgres.cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn an_outage_that_outlasts_the_leases_repeats_no_call_whose_outcome_is_known() {
    let mut postgres = Postgres::start().await;
    let world = World::on(&postgres, slow_api(500)).await;
    world.insert_many(100).await;
    let _worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "1s")
        .env("WORKER_LEASE", "2s")
        .start();
    world.until_accepted(20).await;
    postgres.cluster.crash().await.expect("down");
    let down_since = std::time::Instant::now();
    world
        .until("every lease is over", PATIENCE, async || {
            down_since.elapsed() > Duration::from_millis(2_500)
        })
        .await;
    postgres.cluster.restart().await.expect("up again");
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 100);
    assert_eq!(world.seen().duplicates, 0);
    world.pool.close().await;
    postgres.cluster.stop().await.expect("stopped");
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
    let locked: i64 = sqlx::query_scalar(
        "select id from signaling.outbox where status = 'pending' and claim_id is not null limit 1 for update",
    )
    .fetch_one(&mut *client)
    .await
    .expect("a row that is being sent");
    world
        .until("the others are final", PATIENCE, async || {
            world.count("status = 'pending'").await == 1
        })
        .await;
    client.commit().await.expect("given free");
    assert_eq!(world.until_final(locked).await.status, "message_sent");
    // The locked row's own lease may have ended before its outcome could be written.
    assert!(world.seen().duplicates <= 1);
}

/// More than go into one statement of the recorder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_locked_rows_hold_up_no_other() {
    let world = World::with(slow_api(1_000)).await;
    world.insert_many(450).await;
    let worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "2s")
        .env("WORKER_LEASE", "60s")
        .start();
    let mut client = world.pool.begin().await.expect("a transaction");
    let mut locked = 0;
    world
        .until("hundreds of rows are being sent", PATIENCE, async || {
            locked = sqlx::query(
                "select from signaling.outbox where status = 'pending' and claim_id is not null for update",
            )
            .execute(&mut *client)
            .await
            .expect("locked")
            .rows_affected();
            locked > 250
        })
        .await;
    // Their outcomes are known after a second, and can't be written. This message comes after them.
    let id = world.insert(peer(json!({"payload": "free"}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    let waiting = world.count("status = 'pending'").await;
    assert!(waiting > 250, "{waiting} of {locked}");
    client.commit().await.expect("given free");
    world.until_all_final().await;
    assert_eq!(world.seen().duplicates, 0);
    drop(worker);
}

#[tokio::test]
async fn an_outcome_is_kept_until_the_database_takes_it() {
    let world = World::with(slow_api(500)).await;
    let id = world.insert(peer(json!({"payload": "kept"}))).await;
    let worker = world.worker().start();
    world.until_accepted(1).await;
    // Nobody can connect, and who was connected is thrown out.
    let name: String = world.ask("select current_database()::text").await;
    set_open(&name, false).await;
    terminate_workers(&world).await;
    worker.until_logged("record_failed").await;
    assert_eq!(world.row(id).await.status, "pending");
    set_open(&name, true).await;
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    assert_eq!(world.calls_of("kept").len(), 1);
}

/// Whether a database takes new connections.
async fn set_open(database: &str, open: bool) {
    let url = Postgres::shared().await.cluster.admin_url();
    let mut admin = sqlx::PgConnection::connect(&url).await.expect("connected");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "alter database {database} allow_connections {open}"
    )))
    .execute(&mut admin)
    .await
    .expect("altered");
}

async fn terminate_workers(world: &World) -> i64 {
    world
        .ask(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and application_name = 'signaling-worker'",
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_connections_are_cut_goes_on() {
    let world = World::with(slow_api(20)).await;
    let mut worker = world
        .worker()
        .env("WORKER_REQUEST_TIMEOUT", "1s")
        .env("WORKER_LEASE", "2s")
        .start();
    world.insert_many(400).await;
    for accepted in [50, 150, 250] {
        world.until_accepted(accepted).await;
        assert!(terminate_workers(&world).await > 0);
    }
    world.until_all_final().await;
    assert!(worker.is_running());
    assert_eq!(world.count("status = 'message_sent'").await, 400);
    // A call is repeated only where the row says why.
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
async fn a_lost_doorbell_is_replaced() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    terminate_workers(&world).await;
    worker.until_logged("listener_lost").await;
    // Deaf or not, it finds what is inserted.
    let meanwhile = world.insert(peer(json!({}))).await;
    world.until_final(meanwhile).await;
    world
        .until("it listens again", PATIENCE, async || {
            world
                .ask(
                    "select exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker' and query ilike 'listen%')",
                )
                .await
        })
        .await;
    for _ in 0..3 {
        let id = world.insert(peer(json!({}))).await;
        world.until_final(id).await;
    }
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

    // One that is told to stop meanwhile does.
    postgres.cluster.crash().await.expect("down");
    let mut waiting = world.worker().start();
    waiting.until_logged("startup_delayed").await;
    waiting.stop().await;
    assert!(worker.is_running());
    postgres.cluster.restart().await.expect("up again");
    worker.stop().await;
    world.pool.close().await;
    postgres.cluster.stop().await.expect("stopped");
}
