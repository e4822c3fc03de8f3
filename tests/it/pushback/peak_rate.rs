//! `signaling.peak_rate`: the most calls in a sliding second, by the rows and the attempt log.

use serde_json::json;

use harness::{World, channel, peer};

const MINUTE_US: i64 = 60_000_000;

/// A moment of the year 2030 as SQL.
fn moment(after_us: i64) -> String {
    format!("timestamptz '2030-01-01Z' + {after_us} * interval '1 microsecond'")
}

/// Inserts a message that was last sent at this moment.
async fn sent_at(world: &World, app: &str, after_us: i64) -> i64 {
    let id = world.insert(peer(json!({"app": app}))).await;
    let at = moment(after_us);
    let update = format!("update signaling.outbox set sent_at = {at} where id = {id}");
    world.execute(&update).await;
    id
}

async fn peak(world: &World, app: &str, from_us: i64, to_us: i64) -> i64 {
    let (from, to) = (moment(from_us), moment(to_us));
    let query = format!("select signaling.peak_rate('{app}', {from}, {to})");
    world.ask(&query).await
}

#[tokio::test]
async fn calls_a_second_apart_are_not_in_the_same_second() {
    let world = World::new().await;
    for after_us in [0, 1_000_000, 2_000_000, 3_000_000] {
        sent_at(&world, "default", after_us).await;
    }
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 1);
    sent_at(&world, "default", 999_999).await;
    // The calls at 0 and 999,999, or at 999,999 and 1,000,000.
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 2);
    sent_at(&world, "default", 1_000_000).await;
    // Two calls at 1,000,000 and the one before.
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 3);
}

#[tokio::test]
async fn the_peak_counts_every_call_of_the_app_in_the_span_and_no_other() {
    let world = World::new().await;
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 0);
    assert_eq!(peak(&world, "nobody", 0, MINUTE_US).await, 0);
    let first = sent_at(&world, "default", 300).await;
    // The last call is in both tables if it failed.
    for after_us in [100, 200, 300] {
        let at = moment(after_us);
        let attempt = format!(
            "insert into signaling.attempt (message_id, attempt, sent_at, outcome) values ({first}, 1, {at}, 'transient')"
        );
        world.execute(&attempt).await;
    }
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 3);
    for after_us in [100, 200] {
        sent_at(&world, "other", after_us).await;
    }
    world.insert(channel(json!({}))).await;
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 3);
    assert_eq!(peak(&world, "other", 0, MINUTE_US).await, 2);
    // The span includes its first moment and excludes its last.
    assert_eq!(peak(&world, "default", 100, 300).await, 2);
    assert_eq!(peak(&world, "default", 101, 301).await, 2);
    assert_eq!(peak(&world, "default", 301, MINUTE_US).await, 0);
    // A lost attempt has no time.
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, outcome) values ({first}, 1, 'lost')"
        ))
        .await;
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 3);
    // Two calls at the same moment are two.
    sent_at(&world, "default", 300).await;
    assert_eq!(peak(&world, "default", 0, MINUTE_US).await, 4);
}
