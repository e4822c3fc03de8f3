//! A worker: it delivers by the functions of the protocol, and writes no table.

use serde_json::json;

use super::{
    Role, can, can_not, can_not_harm_the_schema, can_not_update, columns, tables, waiting_message,
};
use harness::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_its_privileges_delivers_slows_down_holds_and_recovers() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    // Old, so that the janitor has something to do.
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'old');
             update signaling.outbox set status = 'failed', finished_at = now() - interval '2 hours',
                    created_at = now() - interval '3 hours'",
        )
        .await;
    let mut worker = world
        .worker()
        .env("DATABASE_URL", &role.url)
        .env("WORKER_LOG", "info,signaling_worker=debug")
        .env("WORKER_RETENTION", "1h")
        .start();
    worker.until_logged("worker_started").await;

    world.insert_many(20).await;
    world.until_all_final().await;
    world.until_count(0, "payload = 'old'").await;
    // Idle, so that the next insert notifies.
    world.until_idle().await;
    world.set_faults(&["429:count=1"]);
    world.assert_sends().await;
    world.until_lane("throttled_at is not null").await;

    // While the lane is held, a message expires; at the end nothing is left.
    world.set_faults(&["500"]);
    world.insert_many(30).await;
    world.until_lane("hold = 'unavailable'").await;
    let (soon, later) = (world.time_in(50).await, world.time_in(3_600_000).await);
    let scheduled = json!({"expires_at": soon, "due_at": later});
    assert_eq!(world.deliver(scheduled).await.1.status, "expired");
    world.set_faults(&[]);
    world.until_lane("hold is null").await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 51);

    worker.stop().await;
    let log = worker.stderr.text();
    assert!(!log.contains("permission denied"), "{log}");
}

#[tokio::test]
async fn a_worker_writes_no_table_and_no_column_of_one() {
    let world = World::new().await;
    world.open_lane("default").await;
    waiting_message(&world).await;
    let role = Role::granted(&world, "worker").await;
    let mut worker = role.connect().await;
    let tables = tables(&world).await;
    assert!(tables.len() >= 10, "{tables:?}");
    for table in &tables {
        can_not(&mut worker, &format!("delete from {table}")).await;
        can_not_update(&world, &mut worker, table).await;
        for column in columns(&world, table).await {
            let statement = format!("insert into {table} ({column}) values (default)");
            can_not(&mut worker, &statement).await;
        }
        for lock in ["update", "no key update", "share", "key share"] {
            can_not(&mut worker, &format!("select from {table} for {lock}")).await;
        }
    }
    // As Postgres has it written down.
    let writes: i64 = world
        .ask(&format!(
            "select count(*) from pg_class, unnest(array['insert', 'update', 'references']) as column_privilege
             where relnamespace = 'signaling'::regnamespace and relkind in ('r', 'v')
               and (has_any_column_privilege('{0}', pg_class.oid, column_privilege)
                    or has_table_privilege('{0}', pg_class.oid, 'delete, truncate, trigger'))",
            role.name
        ))
        .await;
    assert_eq!(writes, 0);
}

#[tokio::test]
async fn a_worker_reads_the_tables_that_its_commands_and_pages_show() {
    let world = World::new().await;
    let mut worker = Role::granted(&world, "worker").await.connect().await;
    let tables = "outbox attempt lane wakeup delivery delivery_status retention minute_stats queue_counts \
                  queue_counts_turn worker worker_app fleet schema_migrations";
    for table in tables.split(' ') {
        can(&mut worker, &format!("table signaling.{table}")).await;
    }
}

#[tokio::test]
async fn a_worker_can_not_step_in_as_an_operator_nor_harm_the_schema() {
    let world = World::new().await;
    world.open_lane("default").await;
    let role = Role::granted(&world, "worker").await;
    let mut worker = role.connect().await;
    let id = waiting_message(&world).await;
    for call in [
        "pause('default')",
        "resume('default')",
        "set_limit('default', 1)",
        "retry('default', dry_run => true)",
        &format!("cancel({id})"),
        "want_wakeup('default', true, now())",
        "end_overdue('{}', now())",
        "assert_session()",
        "wake_workers('default')",
    ] {
        can_not(&mut worker, &format!("select signaling.{call}")).await;
    }
    can_not_harm_the_schema(&world, &mut worker).await;

    role.command(&["migrate"]).fails(1, &[]).await;
}

#[tokio::test]
async fn a_worker_that_may_not_write_stats_sends_its_messages_and_says_so_once() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute(&format!(
            "revoke all on function signaling.add_minute_stats, signaling.refresh_queue_counts from {0}",
            role.name
        ))
        .await;
    let mut worker = world.worker().env("DATABASE_URL", &role.url).start();
    for _ in 0..2 {
        world.assert_sends().await;
        worker.until_logged("stats_failed").await;
        worker.until_logged("queue_counts_failed").await;
    }
    worker.stop().await;
    for event in ["stats_failed", "queue_counts_failed"] {
        assert_eq!(worker.logged(event), 1, "{event}");
    }
}
