//! A reader.

use super::{
    Role, ask, can, can_not, can_not_harm_the_schema, can_not_update, columns, waiting_message,
};
use harness::World;

/// Columns whose text comes from producers.
const CONTENT: [&str; 3] = ["payload", "dedupe_key", "traceparent"];

#[tokio::test]
async fn a_reader_sees_statuses_attempts_and_lanes() {
    let world = World::new().await;
    let role = Role::granted(&world, "reader").await;
    world.open_lane("default").await;
    let id = waiting_message(&world).await;
    let mut reader = role.connect().await;
    let state = format!("select state from signaling.delivery_status where id = {id}");
    let state: String = ask(&mut reader, &state).await;
    assert_eq!(state, "scheduled");
    for statement in [
        "select * from signaling.delivery_status",
        "select * from signaling.attempt",
        "select * from signaling.lane",
        "select app, error, count(*) from signaling.outbox where status = 'failed' group by app, error",
        "select * from signaling.minute_stats",
        "select * from signaling.queue_counts",
        "select * from signaling.worker",
        "select * from signaling.worker_app",
        "select * from signaling.fleet",
        "select signaling.refresh_queue_counts()",
        "select * from signaling.calls('default', now() - interval '1 hour', now())",
        "select signaling.peak_rate(app, now() - interval '1 hour', now()) from signaling.lane",
        "select signaling.present_rate(rate_per_s, rate_at, limit_per_s, now()) from signaling.lane",
    ] {
        can(&mut reader, statement).await;
    }
    let status = role.command(&["status"]).succeeds().await;
    assert!(status.contains("1 scheduled"), "{status}");
    role.command(&["workers"]).succeeds().await;
}

#[tokio::test]
async fn a_reader_sees_no_content_and_changes_nothing() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = waiting_message(&world).await;
    let mut reader = Role::granted(&world, "reader").await.connect().await;
    for column in CONTENT {
        let statement = format!("select {column} from signaling.outbox");
        can_not(&mut reader, &statement).await;
        let statement = format!("select from signaling.outbox where {column} like 'h%'");
        can_not(&mut reader, &statement).await;
        let shown = columns(&world, "signaling.delivery_status").await;
        assert!(!shown.contains(&column.to_owned()), "{column}");
    }
    for statement in [
        "select * from signaling.outbox",
        "select outbox from signaling.outbox",
        "select count(outbox) from signaling.outbox",
        "table signaling.delivery",
        "select payload from signaling.delivery",
        "copy signaling.outbox to stdout",
        "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'x')",
        "insert into signaling.attempt (message_id, attempt, outcome) values (1, 1, 'lost')",
        "select id from signaling.outbox for update",
        "select app from signaling.lane for share",
        "update signaling.delivery_status set status = 'pending'",
        "delete from signaling.delivery_status",
        "insert into signaling.worker select gen_random_uuid(), 'mine', '1', 'host', '{default}', now(), now()",
        "select signaling.report_worker(gen_random_uuid(), 'name', '1', 'host', '{}', '{}', '{}', '{}', '{}', '{}')",
        "select signaling.retire_worker(gen_random_uuid())",
        "select signaling.pause('default')",
        "select signaling.resume('default')",
        "select signaling.set_limit('default', 1)",
        "select signaling.retry('default', dry_run => true)",
    ] {
        can_not(&mut reader, statement).await;
    }
    can_not(&mut reader, &format!("select signaling.cancel({id})")).await;
    for table in ["outbox", "lane", "attempt", "worker", "worker_app"] {
        can_not_update(&world, &mut reader, &format!("signaling.{table}")).await;
    }
    can_not_harm_the_schema(&world, &mut reader).await;
    assert_eq!(world.row(id).await.status, "pending");
}
