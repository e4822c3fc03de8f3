//! A producer.

use super::{
    Role, ask, can, can_not, can_not_harm_the_schema, can_not_update, columns, waiting_message,
};
use harness::World;

/// The columns of the table in docs/producing.md.
const PRODUCERS_COLUMNS: &str = "app, sender, destination, channel_name, payload, wait_for_ack, \
    enable_offline_messaging, enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, \
    dedupe_key, traceparent";

#[tokio::test]
async fn a_producer_inserts_reads_and_cancels_messages_and_they_are_delivered() {
    let world = World::new().await;
    let mut producer = Role::granted(&world, "producer").await.connect().await;
    let _worker = world.worker().start();
    // Idle, so that the insert notifies.
    world.until_idle().await;
    let values = PRODUCERS_COLUMNS.split(", ").map(|column| match column {
        "sender" | "destination" | "payload" => "'x'",
        _ => "default",
    });
    let insert = format!(
        "insert into signaling.outbox ({PRODUCERS_COLUMNS}) values ({}) returning id",
        values.collect::<Vec<_>>().join(", ")
    );
    let id: i64 = ask(&mut producer, &insert).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");

    let status = format!("select status from signaling.outbox where id = {id}");
    let status: String = ask(&mut producer, &status).await;
    assert_eq!(status, "message_sent");
    for relation in ["outbox", "attempt", "delivery", "delivery_status"] {
        let statement = format!("select * from signaling.{relation}");
        can(&mut producer, &statement).await;
    }

    let waiting = waiting_message(&world).await;
    let cancel = format!("select signaling.cancel({waiting})");
    assert!(ask::<bool>(&mut producer, &cancel).await);
    assert!(!ask::<bool>(&mut producer, &cancel).await);
    assert_eq!(world.row(waiting).await.status, "cancelled");
}

#[tokio::test]
async fn a_producer_can_not_touch_the_workers_columns_the_lane_or_a_message() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = waiting_message(&world).await;
    let mut producer = Role::granted(&world, "producer").await.connect().await;
    can_not_update(&world, &mut producer, "signaling.outbox").await;
    let mut workers_columns = columns(&world, "signaling.outbox").await;
    workers_columns.retain(|column| !PRODUCERS_COLUMNS.split(", ").any(|own| own == column));
    assert!(workers_columns.len() > 10, "{workers_columns:?}");
    for column in workers_columns {
        let statement = format!(
            "insert into signaling.outbox (sender, destination, payload, {column})
             values ('alice', 'bob', 'x', default)"
        );
        can_not(&mut producer, &statement).await;
    }
    for statement in [
        "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'x')
         on conflict (id) do update set payload = 'y'",
        "select * from signaling.outbox for update",
        "select * from signaling.outbox for key share",
        "insert into signaling.attempt (message_id, attempt, outcome) values (1, 1, 'lost')",
        "update signaling.attempt set error = null",
        "select * from signaling.lane",
        "update signaling.lane set paused_at = null",
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('x', 1, 1, 1)",
        "select * from signaling.schema_migrations",
        "select * from signaling.wakeup",
        "update signaling.wakeup set wanted_until = 'infinity'",
        "select signaling.pause('default')",
        "select signaling.resume('default')",
        "select signaling.set_limit('default', 1)",
        "select signaling.retry('default')",
        "select signaling.retry('default', dry_run => true)",
    ] {
        can_not(&mut producer, statement).await;
    }
    can_not_harm_the_schema(&world, &mut producer).await;
    assert_eq!(world.row(id).await.status, "pending");
}
