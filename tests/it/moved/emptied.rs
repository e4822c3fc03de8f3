//! Tables that are emptied beneath running workers, as test suites and people do it.

use std::time::Duration;

use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::schema::protocol::lost_rows::TABLES;
use harness::{PATIENCE, World, assert_contains, fleet, peer, slow_api};

/// How long a message takes at most that is inserted after a table was emptied.
const SECONDS: Duration = Duration::from_secs(20);

/// Empties tables, and again where the workers' own locks cross it.
async fn truncate(world: &World, tables: &[&str]) {
    let tables: Vec<_> = tables
        .iter()
        .map(|name| format!("signaling.{name}"))
        .collect();
    let statement = format!("truncate {} cascade", tables.join(", "));
    let is_emptied = async || {
        let truncate = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
        truncate.execute(&world.pool).await.is_ok()
    };
    world.until(&statement, PATIENCE, is_emptied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_sent_within_seconds_after_any_table_was_emptied() {
    let world = World::new().await;
    let worker = world.worker().start();
    world.assert_sends().await;
    for table in TABLES {
        truncate(&world, &[table]).await;
        let id = world.insert(peer(json!({"payload": table}))).await;
        let is_sent = async || world.row(id).await.status == "message_sent";
        world.until(table, SECONDS, is_sent).await;
    }
    assert_eq!(worker.logged("lane_missing"), 1);
    assert_eq!(worker.logged("database_failed"), 0);
    world.until_true("select exists (select from signaling.queue_counts_turn where counted_at > 'epoch')
                        and exists (select from signaling.worker_app join signaling.worker using (worker_id))").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_are_emptied_during_calls_and_the_fleet_goes_on_below_the_limit() {
    let world = World::with(slow_api(300)).await;
    let fleet = fleet(2, || world.worker().env("WORKER_RATE", "100")).await;
    world.insert_many(400).await;
    world.until_accepted(100).await;
    truncate(&world, &TABLES).await;
    let accepted = world.seen().accepted;
    world.insert_many(200).await;
    world.until_all_sent(200).await;
    assert!(world.seen().accepted >= accepted + 200);
    let worst = world.busiest_second();
    // After a stall, calls arrive together. `schema/protocol/lost_rows.rs` tests the gap between the slots of both
    // lanes.
    assert!(worst <= 108, "{worst} calls in a second");
    let (mut missed, mut late) = (0, 0);
    for mut worker in fleet {
        assert_eq!(worker.logged("database_failed"), 0);
        assert_eq!(worker.logged("record_failed"), 0);
        assert!(worker.logged("record_late") <= 1, "of many, one is logged");
        missed += worker.logged("lane_missing");
        late += worker.logged("record_late");
        worker.stop().await;
    }
    assert!((1..=2).contains(&missed), "{missed}");
    assert!(late >= 1, "calls were in flight");
}

#[tokio::test]
async fn a_limit_and_a_pause_that_are_lost_with_the_lane_are_warned_of() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_RATE", "50").start();
    worker.until_logged("worker_started").await;
    for operation in ["set_limit('default', 20)", "pause('default', 'a test')"] {
        world
            .execute(&format!("select signaling.{operation}"))
            .await;
    }
    worker.until_logged("lane_paused").await;
    truncate(&world, &["lane"]).await;
    worker.until_logged("lane_missing").await;
    let line = worker.log_line("lane_missing");
    assert_contains(&line, &[" WARN ", "worker pause"]);
    world.assert_sends().await;
    assert!(world.lane::<bool>("limit_per_s = 50").await);
}
