//! PgBouncer in transaction mode between the workers and the database, with fewer connections than they would have.

use std::time::Duration;

use serde_json::json;
use simulator::SimulatorConfig;
use sqlx::{Connection, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use harness::{
    PATIENCE, PgBouncer, Postgres, Running, Worker, World, assert_contains, fleet, peer,
    pooled_client, slow_api, until,
};

/// The calls a second that the API of these tests allows.
const LIMIT_PER_S: u32 = 150;

/// A client of the application that shares the pool. The client asserts that workers leave no settings and no prepared
/// statements in sessions. Returns the number of checks.
fn other_client(url: &str, ending: CancellationToken) -> JoinHandle<usize> {
    let url = url.to_owned();
    tokio::spawn(async move {
        let mut connection = pooled_client(&url).await.expect("connected");
        let mut looks = 0;
        while !ending.is_cancelled() {
            let row = sqlx::raw_sql(
                "select current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
                        current_setting('lock_timeout'), count(*) from pg_prepared_statements",
            )
            .fetch_one(&mut connection)
            .await
            .expect("an answer");
            let settings: Vec<String> = (0..3).map(|column| row.get(column)).collect();
            assert_eq!(settings, ["on", "on", "0"], "a worker's settings are left");
            assert_eq!(row.get::<i64, _>(3), 0, "a worker's statements are left");
            looks += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connection.close().await.expect("closed");
        looks
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_behind_a_pooler_send_each_message_once_within_the_limit() {
    for settings in PgBouncer::variants().await {
        let mut api = slow_api(20);
        api.behaviour.limit = Some(LIMIT_PER_S);
        let mut world = World::alone(api).await;
        let _pooler = world.connect_through_pooler(settings).await;
        world.insert_many(300).await;
        let rate = LIMIT_PER_S.to_string();
        let mut workers = fleet(2, || world.worker().env("WORKER_RATE", &rate)).await;
        let ending = CancellationToken::new();
        let others: Vec<_> = (0..3)
            .map(|_| other_client(&world.url, ending.clone()))
            .collect();
        for number in 0..60 {
            let message = json!({"payload": format!("single {number}")});
            world.insert(peer(message)).await;
        }
        world.until_all_final().await;
        // The worker finds a lone message without a notification.
        let (_, row) = world.deliver(json!({"payload": "lone"})).await;
        let late = row.sent_at.expect("a call") - row.due_at;
        assert!(late < time::Duration::seconds(2), "{row:?}");

        ending.cancel();
        for client in others {
            assert!(client.await.expect("it found nothing") > 10);
        }
        world.assert_sent_once(361).await;
        world.assert_no_repeats(361);
        let busiest = world.busiest_second();
        assert!(busiest <= u64::from(LIMIT_PER_S), "{busiest} in a second");
        for worker in &mut workers {
            worker.stop().await;
            let said = worker.stderr.text();
            assert!(!said.contains("WARN"), "{settings}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_except_migrate_works_through_a_pooler() {
    for settings in PgBouncer::variants().await {
        let mut world = World::alone(slow_api(0)).await;
        let direct_url = world.url.clone();
        let _pooler = world.connect_through_pooler(settings).await;
        let phrases = [
            "leads through a pooler in transaction mode",
            "run `worker migrate` with the URL of the database itself",
        ];
        world.command(&["migrate"]).fails(1, &phrases).await;
        let migrate = Worker::on(&direct_url, &["migrate"]);
        migrate.succeeds().await;

        world.set_faults(&["400:destination=nobody"]);
        let mut worker = world.worker().start();
        let message = |destination| peer(json!({"destination": destination}));
        let failed = world.insert(message("nobody")).await;
        assert_eq!(world.until_final(failed).await.status, "failed");

        let paused = world.run(&["pause", "default", "--reason", "a test"]).await;
        assert!(paused.starts_with("default is paused: "), "{paused}");
        let held = world.insert(message("bob")).await;
        let cancelled = world.insert(message("carol")).await;
        world.run(&["cancel", &cancelled.to_string()]).await;
        assert_eq!(world.row(cancelled).await.status, "cancelled");
        world.run(&["limit", "default", "50"]).await;
        let status = world.run(&["status"]).await;
        assert_contains(&status, &["paused by", "50"]);
        assert_eq!(world.row(held).await.status, "pending");

        world.set_faults(&[]);
        world.run(&["retry", "--app", "default"]).await;
        world.run(&["resume", "default"]).await;
        for id in [held, failed] {
            assert_eq!(world.until_final(id).await.status, "message_sent");
        }
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_killed_and_started_again_costs_no_message_and_no_outcome() {
    for settings in PgBouncer::variants().await {
        let mut world = World::alone(slow_api(100)).await;
        let mut pooler = world.connect_through_pooler(settings).await;
        let worker = || world.worker().env("WORKER_REQUEST_TIMEOUT", "5s");
        let mut workers = fleet(2, || worker().env("WORKER_LEASE", "8s")).await;
        world.insert_many(500).await;
        world.until_accepted(100).await;
        pooler.kill().await;
        let called = world.seen().calls;
        // One of the workers may have had no message in flight.
        let has_failed = |worker: &Running| worker.logged("record_failed") > 0;
        let have_failed = async || workers.iter().any(has_failed);
        until("a record fails", PATIENCE, have_failed).await;
        pooler.restart(Postgres::shared().await).await;
        world.until_all_sent(500).await;
        assert!(called < 500, "the end came too late for this test");
        // The workers kept the outcomes.
        world.assert_no_repeats(500);
        for worker in &mut workers {
            worker.stop().await;
        }
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_like_a_direct_connection() {
    let mut world = World::alone(SimulatorConfig::default()).await;
    // Each connection of the worker needs its own connection of the pool.
    let settings = "pool_mode = session\ndefault_pool_size = 10";
    let _pooler = world.connect_through_pooler(settings).await;
    let mut worker = world.worker().start();
    world.assert_sends().await;
    world.until_idle().await;
    world
        .until_true(
            "select exists (select from pg_stat_activity where datname = current_database() and query ilike 'listen%')",
        )
        .await;
    worker.stop().await;
}
