//! The proof that the pace held.

use serde_json::json;

use testkit::{World, channel, peer};

/// Makes a message that was last called so many µs into the year 2030.
async fn sent_at(world: &World, app: &str, after_us: i64) -> i64 {
    let id = world.insert(peer(json!({"app": app}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set sent_at = timestamptz '2030-01-01Z' + {after_us} * interval '1 microsecond'
             where id = {id}"
        ))
        .await;
    id
}

async fn attempt_at(world: &World, message_id: i64, after_us: i64) {
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, sent_at, outcome)
             values ({message_id}, 1, timestamptz '2030-01-01Z' + {after_us} * interval '1 microsecond', 'transient')"
        ))
        .await;
}

/// The peak from so many µs into the year 2030 to so many.
async fn peak(world: &World, app: &str, from_us: i64, to_us: i64) -> i64 {
    world
        .ask(&format!(
            "select signaling.peak_rate('{app}', timestamptz '2030-01-01Z' + {from_us} * interval '1 microsecond',
                                        timestamptz '2030-01-01Z' + {to_us} * interval '1 microsecond')"
        ))
        .await
}

#[tokio::test]
async fn calls_a_second_apart_are_not_in_the_same_second() {
    let world = World::new().await;
    for after_us in [0, 1_000_000, 2_000_000, 3_000_000] {
        sent_at(&world, "default", after_us).await;
    }
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 1);
    sent_at(&world, "default", 999_999).await;
    assert_eq!(
        peak(&world, "default", 0, 60_000_000).await,
        2,
        "0 and 999,999, or 999,999 and 1,000,000"
    );
    sent_at(&world, "default", 1_000_000).await;
    assert_eq!(
        peak(&world, "default", 0, 60_000_000).await,
        3,
        "two at 1,000,000 and the one before"
    );
}

#[tokio::test]
async fn the_peak_counts_every_call_of_the_app_in_the_span_and_no_other() {
    let world = World::new().await;
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 0);
    assert_eq!(peak(&world, "nobody", 0, 60_000_000).await, 0);
    let first = sent_at(&world, "default", 300).await;
    // Its earlier calls, and its last one, which stands in both tables if it did not end well.
    for after_us in [100, 200, 300] {
        attempt_at(&world, first, after_us).await;
    }
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 3);
    for after_us in [100, 200] {
        sent_at(&world, "other", after_us).await;
    }
    world.insert(channel(json!({}))).await;
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 3);
    assert_eq!(peak(&world, "other", 0, 60_000_000).await, 2);
    // From its first moment to before its last.
    assert_eq!(peak(&world, "default", 100, 300).await, 2);
    assert_eq!(peak(&world, "default", 101, 301).await, 2);
    assert_eq!(peak(&world, "default", 301, 60_000_000).await, 0);
    // An attempt that was lost has no time of a call.
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, outcome) values ({first}, 1, 'lost')"
        ))
        .await;
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 3);
    // Two calls at the same moment are two.
    sent_at(&world, "default", 300).await;
    assert_eq!(peak(&world, "default", 0, 60_000_000).await, 4);
}
