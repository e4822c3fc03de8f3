//! The proof that the pace held.

use serde_json::json;
use simulator::SimulatorConfig;

use testkit::{APP_ID, World, channel, peer};

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
             values ({message_id}, 1, timestamptz '2030-01-01Z' + {after_us} * interval '1 microsecond', 'retry')"
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peak_of_a_run_is_within_the_limit_and_what_the_api_saw() {
    let world = World::alone(SimulatorConfig::default()).await;
    world.set_faults(&["500:count=3", "503:first_calls=1,share=0.05"]);
    world.insert_many(180).await;
    let worker = || world.worker().env("WORKER_RATE", "100");
    let _fleet = super::fleet(2, worker).await;
    world.until_all_final().await;

    let peak: i64 = world
        .ask("select signaling.peak_rate('default', now() - interval '1 minute', now())")
        .await;
    assert!(peak <= 100, "{peak} calls in a second");
    let app = &world.seen().apps[APP_ID];
    assert!(app.worst_sliding_second <= 100, "{app:?}");
    let seen = i64::try_from(app.worst_sliding_second).expect("few");
    assert!((peak - seen).abs() <= 5, "{peak} here, {seen} there");
    let calls: i64 = world
        .ask("select count(*) from signaling.calls('default', now() - interval '1 minute', now())")
        .await;
    assert_eq!(
        calls.unsigned_abs(),
        app.calls,
        "every call is accounted for"
    );

    let status = world.command(&["status", "--json"]).finish().await;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status[0]["peak_calls_1m"], peak);
    let text = world.command(&["status"]).finish().await.stdout;
    assert!(
        text.contains(&format!("at most {peak} in a second of the last minute")),
        "{text}"
    );
}
