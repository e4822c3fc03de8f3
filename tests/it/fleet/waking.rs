//! An idle worker finds messages by notifications and by polls.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Postgres, Transaction};

use harness::{PATIENCE, World, ask};

/// Far less than a poll interval of a minute.
const PROMPT: time::Duration = time::Duration::seconds(2);

/// Inserts a message in a transaction that is not committed yet.
async fn insert_uncommitted(world: &World) -> (Transaction<'static, Postgres>, i64) {
    let mut open = world.pool.begin().await.expect("a transaction");
    let insert = "insert into signaling.outbox (sender, destination, payload)
                  values ('alice', 'bob', 'late') returning id";
    let id = ask(&mut open, insert).await;
    (open, id)
}

/// Inserts a message, and asserts that it is sent soon after.
async fn is_sent_promptly(world: &World, message: serde_json::Value) {
    let (_, row) = world.deliver(message).await;
    let latency = row.sent_at.expect("called") - row.created_at;
    assert!(latency < PROMPT, "called {latency} after the insert");
}

#[tokio::test]
async fn an_insert_notifies_an_idle_worker() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    // After the first polls, which are short, only a notification is prompt.
    for number in 0..8 {
        is_sent_promptly(&world, json!({"payload": format!("notify {number}")})).await;
    }
}

#[tokio::test]
async fn polling_alone_is_enough() {
    let world = World::new().await;
    world
        .execute("alter table signaling.outbox disable trigger notify_workers")
        .await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "200ms").start();
    world.until_idle().await;
    for number in 0..5 {
        is_sent_promptly(&world, json!({"payload": format!("quiet {number}")})).await;
    }
}

#[tokio::test]
async fn a_message_committed_after_the_worker_became_idle_is_found_soon() {
    let world = World::new().await;
    let (open, id) = insert_uncommitted(&world).await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    assert_eq!(world.seen().calls, 0);
    open.commit().await.expect("committed");
    let begun = Instant::now();
    world.until_final(id).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "found after {took:?}");
}

#[tokio::test]
async fn an_idle_worker_writes_nothing() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "20ms").start();
    world.until_idle().await;
    let scans = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where relname = 'outbox'";
    let version = "xmin::text || ctid::text";
    let (before, scans_before): (String, i64) = (world.lane(version).await, world.ask(scans).await);
    let have_happened = async || world.ask::<i64>(scans).await >= scans_before + 5;
    world.until("five polls", PATIENCE, have_happened).await;
    let after: String = world.lane(version).await;
    assert_eq!(after, before, "the lane's row was written");
}

#[tokio::test]
async fn a_message_that_was_due_long_before_its_insert_is_sent_at_once() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    for number in 0..4 {
        let earlier = world.time_in(-60_000 * (number + 1)).await;
        is_sent_promptly(&world, json!({"due_at": earlier})).await;
    }
}

#[tokio::test]
async fn a_message_committed_long_after_its_due_time_is_found_while_others_flow() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    let (mut open, id) = insert_uncommitted(&world).await;
    // Longer than a claim looks back.
    let is_old = "select clock_timestamp() > now() + interval '3 seconds'";
    while !ask::<bool>(&mut open, is_old).await {
        world.deliver(json!({})).await;
    }
    open.commit().await.expect("committed");
    let begun = Instant::now();
    while world.row(id).await.status == "pending" {
        world.deliver(json!({})).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(world.row(id).await.status, "message_sent");
}
