//! A worker: it delivers by the functions of the protocol, and writes no table.

use serde_json::json;

use super::{Role, can, can_not, can_not_harm_the_schema, columns, list, waiting_message};
use testkit::{PATIENCE, World, peer};

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
    let holds = async || world.count("payload = 'old'").await == 0;
    world.until("what is old is deleted", PATIENCE, holds).await;
    // Idle, so that the next insert notifies.
    world.until_idle().await;
    world.set_faults(&["429:count=1"]);
    let throttled = world.insert(peer(json!({}))).await;
    assert_eq!(world.until_final(throttled).await.status, "message_sent");
    world.until_lane("throttled_at is not null").await;

    // While the lane is held, a message expires; at the end nothing is left.
    world.set_faults(&["500"]);
    world.insert_many(30).await;
    world
        .until_lane("hold is not distinct from 'unavailable'")
        .await;
    let expires_at = world.time_in(50).await;
    let expired = world
        .insert(peer(
            json!({"expires_at": expires_at, "due_at": world.time_in(3_600_000).await}),
        ))
        .await;
    assert_eq!(world.until_final(expired).await.status, "expired");
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
    let tables = list(
        &world,
        "select oid::regclass::text from pg_class
         where relnamespace = 'signaling'::regnamespace and relkind = 'r' order by 1",
    )
    .await;
    assert!(tables.len() >= 10, "{tables:?}");
    for table in &tables {
        can_not(&mut worker, &format!("delete from {table}")).await;
        for column in columns(&world, table).await {
            let statement = format!("insert into {table} ({column}) values (default)");
            can_not(&mut worker, &statement).await;
            let statement = format!("update {table} set {column} = default");
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
async fn a_worker_reads_what_it_shows_and_no_more() {
    let world = World::new().await;
    let mut worker = Role::granted(&world, "worker").await.connect().await;
    for table in [
        "outbox",
        "attempt",
        "lane",
        "wakeup",
        "delivery",
        "delivery_status",
        "retention",
        "minute_stats",
        "queue_counts",
        "queue_counts_turn",
        "worker",
        "worker_app",
        "fleet",
        "schema_migrations",
    ] {
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

    let migrated = role.command(&["migrate"]).finish().await;
    assert_eq!(migrated.code, Some(1), "{migrated:?}");
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
        let id = world.insert(peer(json!({}))).await;
        world.until_final(id).await;
        worker.until_logged("stats_failed").await;
        worker.until_logged("queue_counts_failed").await;
    }
    worker.stop().await;
    for event in ["stats_failed", "queue_counts_failed"] {
        assert_eq!(worker.logged(event), 1, "{event}");
    }
}
