//! `WORKER_RETENTION`: a worker deletes messages that finished long ago.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use harness::{World, ask, execute, peer};

/// Inserts messages that finished two hours ago, an hour after their insert. Returns the first id.
async fn insert_old(world: &World, count: i32) -> i64 {
    let first: i64 = world
        .ask("select coalesce(max(id), 0) + 1 from signaling.outbox")
        .await;
    world.insert_many(count).await;
    let changes = format!(
        "status = 'failed', finished_at = now() - interval '2 hours',
         created_at = now() - interval '3 hours' where id >= {first}"
    );
    world.set_messages(&changes).await;
    first
}

/// Deletes a batch as a worker does.
async fn try_to_delete(world: &World, worker: Uuid, retain: &str) -> Result<Batch, sqlx::Error> {
    sqlx::query_as("select * from signaling.delete_finished($1, $2::interval)")
        .bind(worker)
        .bind(retain)
        .fetch_one(&world.pool)
        .await
}

/// Deletes a batch of messages that finished an hour ago.
async fn delete_batch(world: &World, worker: Uuid) -> Batch {
    try_to_delete(world, worker, "1 hour")
        .await
        .expect("a batch")
}

/// Deletes batches until the pass is over. Returns their number. With the worker's short batches, a slow machine would need
/// many.
async fn delete_all(world: &World) -> usize {
    let delete = "select * from signaling.delete_finished($1, '1 hour', '100 milliseconds')";
    let worker = Uuid::new_v4();
    for batches in 1..2_000 {
        let batch = sqlx::query_as(delete).bind(worker).fetch_one(&world.pool);
        let batch: Batch = batch.await.expect("a batch");
        assert!(batch.has_turn);
        if batch.is_pass_over {
            return batches;
        }
    }
    panic!("the pass has no end");
}

/// Ends the pause between two passes, or the turn of a dead worker.
async fn let_the_next_one_delete(world: &World) {
    world
        .execute("update signaling.retention set held_until = 'epoch'")
        .await;
}

#[derive(Debug, FromRow)]
struct Batch {
    has_turn: bool,
    is_pass_over: bool,
    deleted: Option<i64>,
}

#[tokio::test]
async fn messages_that_finished_long_ago_go_with_their_attempts_and_all_others_stay() {
    let world = World::new().await;
    let old = insert_old(&world, 2_500).await;
    world
        .execute(
            "insert into signaling.attempt (message_id, attempt, outcome)
             select id, number, 'transient' from signaling.outbox, generate_series(1, 2) as number where id % 5 = 0;
             update signaling.outbox set dedupe_key = 'taken' where id = 17",
        )
        .await;
    let waits = insert_old(&world, 4).await;
    let (late, locked, young) = (waits + 1, waits + 2, waits + 3);
    world
        .execute(&format!(
            "update signaling.outbox set status = 'pending', finished_at = null, due_at = now() + interval '1 day'
             where id = {waits};
             update signaling.outbox set finished_at = now() where id = {late};
             update signaling.outbox set created_at = now(), finished_at = now() where id = {young};
             insert into signaling.attempt (message_id, attempt, outcome) values ({young}, 1, 'transient')"
        ))
        .await;
    let lock = format!("select from signaling.outbox where id = {locked} for key share");
    let client = world.open_transaction(&lock).await;

    let mut worker = world.worker().env("WORKER_RETENTION", "1h").start();
    worker.until_logged("messages_deleted").await;
    let line = worker.log_line("messages_deleted");
    assert!(line.contains("deleted=2500 retention=1h"), "{line}");
    let messages = "select id from signaling.outbox order by id";
    let left: Vec<i64> = world.column(messages).await;
    assert_eq!(left, [waits, late, locked, young]);
    let attempts = "select message_id from signaling.attempt";
    assert_eq!(world.column::<i64>(attempts).await, [young]);
    worker.stop().await;

    // The next pass finds the message that was locked.
    client.commit().await.expect("given free");
    let_the_next_one_delete(&world).await;
    let next = world.worker().env("WORKER_RETENTION", "1h").start();
    next.until_logged("messages_deleted").await;
    assert_eq!(world.count(&format!("id = {locked}")).await, 0);
    assert_eq!(world.count("true").await, 3);

    assert_eq!(old, 1, "message 17 is one of the old messages");
    // The dedupe key of a deleted message is free again.
    world.insert(peer(json!({"dedupe_key": "taken"}))).await;
}

#[tokio::test]
async fn nothing_is_deleted_without_the_setting() {
    let world = World::new().await;
    insert_old(&world, 10).await;
    let _worker = world.worker().start();
    world.deliver(json!({})).await;
    world.until_idle().await;
    assert_eq!(world.count("true").await, 11);
    let turns = "select count(*) from signaling.retention";
    assert_eq!(world.ask::<i64>(turns).await, 0);
}

#[tokio::test]
async fn a_pass_belongs_to_one_worker_and_another_continues_it_after_a_death() {
    let world = World::new().await;
    insert_old(&world, 3_000).await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = delete_batch(&world, one).await;
    let deleted = first.deleted.expect("a number");
    assert!(first.has_turn && !first.is_pass_over && deleted > 0);
    assert_eq!(world.count("true").await, 3_000 - deleted);

    assert!(!delete_batch(&world, other).await.has_turn);
    assert_eq!(world.count("true").await, 3_000 - deleted);

    let_the_next_one_delete(&world).await;
    let next = delete_batch(&world, other).await;
    assert!(next.has_turn);
    // The number includes the deletions of the first worker.
    let deleted = next.deleted.expect("a number");
    assert_eq!(world.count("true").await, 3_000 - deleted);
    assert!(!delete_batch(&world, one).await.has_turn);
}

#[tokio::test]
async fn a_deletion_that_is_stuck_holds_up_no_message_and_no_shutdown() {
    let world = World::new().await;
    insert_old(&world, 50).await;
    world
        .execute(
            "insert into signaling.attempt (message_id, attempt, outcome) values (25, 1, 'transient')",
        )
        .await;
    let _client = world
        .open_transaction("select from signaling.attempt for update")
        .await;
    let mut worker = world.worker().env("WORKER_RETENTION", "1h").start();
    world.until_worker_waits_for_lock().await;
    world.assert_sends().await;
    let begun = Instant::now();
    worker.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(world.count("id <= 50").await, 50, "the batch is undone");
}

#[tokio::test]
async fn a_pass_ends_at_young_messages_whatever_created_at_their_producers_set() {
    let world = World::new().await;
    insert_old(&world, 300).await;
    world
        .execute(
            "update signaling.outbox set created_at = 'infinity' where id <= 150;
             update signaling.outbox set created_at = now() + interval '1 day' where id > 150",
        )
        .await;
    world.insert_many(300).await;
    // The pass does not look behind young messages, because later messages can't have finished before them.
    insert_old(&world, 10).await;

    delete_all(&world).await;
    assert_eq!(world.count("id <= 300").await, 0);
    assert_eq!(world.count("id > 300").await, 310);
    let query = "select looked_up_to from signaling.retention";
    let looked_up_to: i64 = world.ask(query).await;
    assert!((400..600).contains(&looked_up_to), "{looked_up_to}");
}

#[tokio::test]
async fn a_pass_crosses_a_gap_of_any_size_in_few_batches_and_reads_no_table_as_a_whole() {
    let world = World::new().await;
    insert_old(&world, 10).await;
    world
        .execute("select setval(pg_get_serial_sequence('signaling.outbox', 'id'), 20000000000)")
        .await;
    insert_old(&world, 10).await;
    let batches = delete_all(&world).await;
    assert_eq!(world.count("true").await, 0);
    assert!(batches < 500, "{batches} batches");

    // The table is so small that the planner would choose a sequential scan.
    insert_old(&world, 100).await;
    world.execute("analyze signaling.outbox").await;
    let_the_next_one_delete(&world).await;
    let delete = "select signaling.delete_finished(gen_random_uuid(), '1 hour')";
    let scans = "select seq_scan from pg_stat_xact_user_tables
                 where schemaname = 'signaling' and relname = 'outbox'";
    let mut transaction = world.pool.begin().await.expect("a transaction");
    let before: i64 = ask(&mut transaction, scans).await;
    execute(&mut transaction, delete).await;
    assert_eq!(ask::<i64>(&mut transaction, scans).await, before);
}

#[tokio::test]
async fn a_retention_below_a_minute_is_refused() {
    let world = World::new().await;
    let young = try_to_delete(&world, Uuid::new_v4(), "59 seconds").await;
    let error = young.expect_err("refused").to_string();
    assert!(error.contains("at least 1 minute"), "{error}");
}
