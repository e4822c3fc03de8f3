//! Messages that finished long ago are deleted, if that is asked for.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use testkit::{PATIENCE, World, log_lines, peer};

/// Inserts so many messages that finished two hours ago, an hour after they were inserted. The first id.
async fn insert_old(world: &World, count: i32) -> i64 {
    let first: i64 = world
        .ask("select coalesce(max(id), 0) + 1 from signaling.outbox")
        .await;
    world.insert_many(count).await;
    world.execute(&format!(
        "update signaling.outbox
         set status = 'failed', finished_at = now() - interval '2 hours', created_at = now() - interval '3 hours'
         where id >= {first}"
    ))
    .await;
    first
}

/// Deletes a batch as a worker would.
async fn delete_finished(world: &World, worker: Uuid, retain: &str) -> Result<Batch, sqlx::Error> {
    sqlx::query_as("select * from signaling.delete_finished($1, $2::interval)")
        .bind(worker)
        .bind(retain)
        .fetch_one(&world.pool)
        .await
}

/// Deletes batches until the pass is over. How many batches there were.
async fn delete_all_finished(world: &World, retain: &str) -> usize {
    let worker = Uuid::new_v4();
    for batches in 1..2_000 {
        let batch = delete_finished(world, worker, retain)
            .await
            .expect("a batch");
        assert!(batch.has_turn);
        if batch.is_pass_over {
            return batches;
        }
    }
    panic!("the pass has no end");
}

/// Ends the rest between two passes, or the turn of a worker that is gone.
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
    let waits = insert_old(&world, 1).await;
    let (late, locked, young) = (waits + 1, waits + 2, waits + 3);
    insert_old(&world, 2).await;
    world
        .execute(&format!(
            "update signaling.outbox set status = 'pending', finished_at = null, due_at = now() + interval '1 day'
             where id = {waits};
             update signaling.outbox set finished_at = now() where id = {late}"
        ))
        .await;
    world.insert_many(1).await;
    world
        .execute(&format!(
            "update signaling.outbox set status = 'cancelled', finished_at = now() where id = {young};
             insert into signaling.attempt (message_id, attempt, outcome) values ({young}, 1, 'transient')"
        ))
        .await;
    let mut client = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.outbox where id = $1 for key share")
        .bind(locked)
        .execute(&mut *client)
        .await
        .expect("locked");

    let mut worker = world.worker().env("WORKER_RETENTION", "1h").start();
    worker.until_logged("messages_deleted").await;
    let line = worker.log_line("messages_deleted");
    assert!(line.contains("deleted=2500 retention=1h"), "{line}");
    let left: Vec<i64> = sqlx::query_scalar("select id from signaling.outbox order by id")
        .fetch_all(&world.pool)
        .await
        .expect("ids");
    assert_eq!(left, [waits, late, locked, young]);
    let attempts: Vec<i64> = sqlx::query_scalar("select message_id from signaling.attempt")
        .fetch_all(&world.pool)
        .await
        .expect("attempts");
    assert_eq!(attempts, [young]);
    worker.stop().await;

    // The next pass finds what the first one had to pass over.
    client.commit().await.expect("given free");
    let_the_next_one_delete(&world).await;
    let next = world.worker().env("WORKER_RETENTION", "1h").start();
    next.until_logged("messages_deleted").await;
    assert_eq!(world.count(&format!("id = {locked}")).await, 0);
    assert_eq!(world.count("true").await, 3);

    assert_eq!(old, 1, "17 was one of the old ones");
    let again = world
        .try_insert(&peer(json!({"dedupe_key": "taken"})))
        .await;
    assert!(again.is_ok(), "its key is free again: {again:?}");
}

#[tokio::test]
async fn nothing_is_deleted_unless_it_is_asked_for() {
    let world = World::new().await;
    insert_old(&world, 10).await;
    let _worker = world.worker().start();
    let id = world.insert(peer(json!({}))).await;
    world.until_final(id).await;
    world.until_idle().await;
    assert_eq!(world.count("true").await, 11);
    let untouched: bool = world
        .ask("select not exists (select from signaling.retention)")
        .await;
    assert!(untouched, "no worker has asked for a turn");
}

#[tokio::test]
async fn of_two_workers_one_deletes_at_a_time() {
    let world = World::new().await;
    insert_old(&world, 5_000).await;
    let worker = || world.worker().env("WORKER_RETENTION", "1h").start();
    let (one, other) = (worker(), worker());
    world
        .until("the pass is over", PATIENCE, async || {
            one.logged("messages_deleted") + other.logged("messages_deleted") > 0
        })
        .await;
    assert_eq!(world.count("true").await, 0);
    let said = one.stderr.text() + &other.stderr.text();
    let deleted = log_lines(&said, "messages_deleted");
    assert_eq!(deleted.len(), 1, "{said}");
    assert!(deleted[0].contains("deleted=5000"), "{said}");
    assert!(log_lines(&said, "deletion_failed").is_empty(), "{said}");
}

#[tokio::test]
async fn a_pass_is_one_workers_until_that_is_gone_and_goes_on_where_it_was() {
    let world = World::new().await;
    insert_old(&world, 3_000).await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = delete_finished(&world, one, "1 hour")
        .await
        .expect("a batch");
    let deleted = first.deleted.expect("a number");
    assert!(first.has_turn && !first.is_pass_over && deleted > 0);
    assert_eq!(world.count("true").await, 3_000 - deleted);

    let refused = delete_finished(&world, other, "1 hour")
        .await
        .expect("an answer");
    assert!(!refused.has_turn);
    assert_eq!(world.count("true").await, 3_000 - deleted);

    let_the_next_one_delete(&world).await;
    let next = delete_finished(&world, other, "1 hour")
        .await
        .expect("a batch");
    assert!(next.has_turn);
    assert_eq!(
        world.count("true").await,
        3_000 - next.deleted.expect("a number"),
        "it counts on"
    );
    let late = delete_finished(&world, one, "1 hour")
        .await
        .expect("an answer");
    assert!(!late.has_turn, "the first one has lost its turn");
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
    let mut client = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.attempt for update")
        .execute(&mut *client)
        .await
        .expect("locked");
    let mut worker = world.worker().env("WORKER_RETENTION", "1h").start();
    world
        .until("a batch is stuck", PATIENCE, async || {
            world
                .ask(
                    "select exists (select from pg_stat_activity where datname = current_database()
                     and wait_event_type = 'Lock' and query like '%delete_finished%')",
                )
                .await
        })
        .await;
    for _ in 0..5 {
        let id = world.insert(peer(json!({}))).await;
        assert_eq!(world.until_final(id).await.status, "message_sent");
    }
    let begun = Instant::now();
    worker.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it waited for the deletion"
    );
    assert_eq!(world.count("id <= 50").await, 50, "the batch is undone");
    drop(client);
}

#[tokio::test]
async fn a_pass_ends_where_messages_are_too_young_whatever_their_producers_date_them() {
    let world = World::new().await;
    insert_old(&world, 300).await;
    world
        .execute(
            "update signaling.outbox set created_at = 'infinity' where id <= 150;
             update signaling.outbox set created_at = now() + interval '1 day' where id > 150",
        )
        .await;
    world.insert_many(300).await;
    // Nothing that was inserted after those can have finished before them: it is not looked for.
    insert_old(&world, 10).await;

    delete_all_finished(&world, "1 hour").await;
    assert_eq!(
        world.count("id <= 300").await,
        0,
        "dates ahead prove nothing"
    );
    assert_eq!(world.count("id > 300").await, 310);
    let looked_up_to: i64 = world
        .ask("select looked_up_to from signaling.retention")
        .await;
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
    let batches = delete_all_finished(&world, "1 hour").await;
    assert_eq!(world.count("true").await, 0);
    assert!(batches < 500, "{batches} batches");

    // With settings that leave the choice to the planner, on a table that is small enough to be read as a whole.
    insert_old(&world, 100).await;
    world.execute("analyze signaling.outbox").await;
    let_the_next_one_delete(&world).await;
    let mut transaction = world.pool.begin().await.expect("a transaction");
    let scanned = "select seq_scan from pg_stat_xact_user_tables
                   where schemaname = 'signaling' and relname = 'outbox'";
    let before: i64 = sqlx::query_scalar(scanned)
        .fetch_one(&mut *transaction)
        .await
        .expect("statistics");
    sqlx::query("select signaling.delete_finished(gen_random_uuid(), '1 hour')")
        .execute(&mut *transaction)
        .await
        .expect("a batch");
    let after: i64 = sqlx::query_scalar(scanned)
        .fetch_one(&mut *transaction)
        .await
        .expect("statistics");
    assert_eq!(after, before);
}

#[tokio::test]
async fn who_may_call_the_function_needs_no_right_to_delete_and_gets_at_nothing_young() {
    let world = World::new().await;
    insert_old(&world, 5).await;
    let young = delete_finished(&world, Uuid::new_v4(), "59 seconds").await;
    let error = young.expect_err("refused").to_string();
    assert!(error.contains("at least 1 minute"), "{error}");

    let mut transaction = world.pool.begin().await.expect("a transaction");
    let call = "select has_turn from signaling.delete_finished(gen_random_uuid(), '1 hour')";
    sqlx::raw_sql(
        "create role a_worker_of_retention; grant usage on schema signaling to a_worker_of_retention;
         set local role a_worker_of_retention; savepoint before",
    )
    .execute(&mut *transaction)
    .await
    .expect("a role");
    let refused = sqlx::raw_sql(call).execute(&mut *transaction).await;
    let error = refused.expect_err("not granted").to_string();
    assert!(error.contains("permission denied for function"), "{error}");
    sqlx::raw_sql(
        "rollback to before; reset role;
         grant execute on function signaling.delete_finished to a_worker_of_retention;
         set local role a_worker_of_retention",
    )
    .execute(&mut *transaction)
    .await
    .expect("granted");
    sqlx::raw_sql(call)
        .execute(&mut *transaction)
        .await
        .expect("deleted");
    sqlx::raw_sql("reset role")
        .execute(&mut *transaction)
        .await
        .expect("reset");
    let left: i64 = sqlx::query_scalar("select count(*) from signaling.outbox")
        .fetch_one(&mut *transaction)
        .await
        .expect("a count");
    assert_eq!(left, 0);
}
