//! The metrics: named as documented, and adding up to what the API and the database have seen.

use serde_json::json;

use super::door::Watched;
use super::text::Samples;
use testkit::{APP_ID, PATIENCE, World, peer};

/// What is counted in each process.
const OF_THE_PROCESS: [&str; 12] = [
    "signaling_build_info",
    "signaling_call_duration_seconds_bucket",
    "signaling_calls_total",
    "signaling_database_errors_total",
    "signaling_database_statement_duration_seconds_bucket",
    "signaling_database_up",
    "signaling_queue_wait_seconds_bucket",
    "signaling_in_flight_messages",
    "signaling_log_lines_dropped_total",
    "signaling_messages_finished_total",
    "signaling_slots_missed_total",
    "signaling_task_panics_total",
];
/// What the database says of the fleet.
const OF_THE_FLEET: [&str; 9] = [
    "signaling_backlog_sample_age_seconds",
    "signaling_backlog_messages",
    "signaling_lane_state",
    "signaling_limit_calls_per_second",
    "signaling_oldest_message_age_seconds",
    "signaling_rate_calls_per_second",
    "signaling_unserved_messages",
    "signaling_workers_alive",
    "signaling_workers_aside",
];

async fn samples(watched: &Watched) -> Samples {
    let answer = watched.door.get("/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    Samples::read(&answer.body)
}

fn app(name: &str, label: &str, value: &str) -> String {
    format!("{name}{{app=\"default\",{label}=\"{value}\"}}")
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Of the messages of [`go_wrong_in_every_way`], those that are called for certain, and all of them.
const CALLED: u32 = 48;
const ALL: u32 = 51;

/// Inserts messages with every outcome.
async fn go_wrong_in_every_way(world: &World) {
    world.set_faults(&[
        "500:destination=later,first_calls=2",
        "429:destination=slower,first_calls=1",
        "400:destination=never",
        "drop:destination=dropped,first_calls=1",
        "drop:destination=once",
        "504:destination=gateway,first_calls=1",
    ]);
    world.change(|behaviour| behaviour.offline_prefix = Some("offline".into()));
    world.insert_many(40).await;
    for destination in ["later", "slower", "never", "dropped", "gateway"] {
        world
            .insert(peer(json!({"destination": destination})))
            .await;
    }
    for destination in ["offline-1", "online"] {
        world
            .insert(peer(
                json!({"destination": destination, "wait_for_ack": true}),
            ))
            .await;
    }
    world
        .insert(peer(json!({"destination": "once", "at_most_once": true})))
        .await;
    // One expires in a claim, one before it is due; one was lost by a worker that died.
    let past = world.time_in(-1_000).await;
    let soon = world.time_in(500).await;
    world
        .insert(peer(
            json!({"due_at": world.time_in(-2_000).await, "expires_at": past}),
        ))
        .await;
    world
        .insert(peer(
            json!({"due_at": world.time_in(400).await, "expires_at": soon}),
        ))
        .await;
    let lost = world.insert(peer(json!({"at_most_once": true}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set claim_id = gen_random_uuid(), claimed_by = 'dead',
                    due_at = clock_timestamp() - interval '1 minute'
             where id = {lost}"
        ))
        .await;
}

#[tokio::test]
async fn what_is_counted_adds_up_to_what_the_api_saw_and_the_database_has() {
    let world = World::new().await;
    go_wrong_in_every_way(&world).await;
    let mut watched = Watched::start(world.worker()).await;
    world.until_all_final().await;
    // What ends in a record is counted when the answer to that is there.
    world
        .until("all is counted", PATIENCE, async || {
            samples(&watched)
                .await
                .sum("signaling_messages_finished_total")
                >= f64::from(ALL)
        })
        .await;
    let samples = samples(&watched).await;
    let names = samples.names("signaling_");
    for name in OF_THE_PROCESS {
        assert!(names.contains(name), "{name} is missing");
    }

    let seen = &world.seen().apps[APP_ID];
    let answered = |status: u16| float(seen.by_status.get(&status).copied().unwrap_or(0));
    let calls = |outcome: &str| samples.value(&app("signaling_calls_total", "outcome", outcome));
    let equal = |what: &str, counted: f64, expected: f64| {
        assert!(
            (counted - expected).abs() < 0.5,
            "{what}: {counted} of {expected}; {seen:?}"
        );
    };
    let well = calls("message_sent") + calls("message_delivered") + calls("message_offline");
    equal("well", well, answered(200));
    equal("delivered", calls("message_delivered"), 1.0);
    equal("offline", calls("message_offline"), 1.0);
    equal("transient", calls("transient"), answered(500));
    equal("throttled", calls("throttled"), answered(429));
    equal("rejected", calls("rejected"), answered(400));
    equal(
        "ambiguous",
        calls("ambiguous"),
        answered(504) + float(seen.unanswered),
    );
    equal("unauthorized", calls("unauthorized"), 0.0);
    equal(
        "all",
        samples.sum("signaling_calls_total"),
        float(seen.calls),
    );
    let durations = samples.value("signaling_call_duration_seconds_count{app=\"default\"}");
    equal("durations", durations, float(seen.calls));
    let delays = samples.value("signaling_queue_wait_seconds_count{app=\"default\"}");
    // The one that was due for 100 ms may have been called.
    assert!(
        (f64::from(CALLED)..=f64::from(CALLED + 1)).contains(&delays),
        "{delays}"
    );

    for status in [
        "message_sent",
        "message_delivered",
        "message_offline",
        "failed",
        "expired",
        "unknown",
    ] {
        let rows = world.count(&format!("status = '{status}'")).await;
        let counted = samples.value(&app("signaling_messages_finished_total", "status", status));
        equal(status, counted, float(rows.unsigned_abs()));
    }
    equal(
        "in flight",
        samples.sum("signaling_in_flight_messages"),
        0.0,
    );
    let claims = "signaling_database_statement_duration_seconds_count{statement=\"claim\"}";
    let records = "signaling_database_statement_duration_seconds_count{statement=\"record\"}";
    assert!(samples.value(claims) >= 1.0 && samples.value(records) >= 1.0);
    let version = format!(
        "signaling_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    equal("build", samples.value(&version), 1.0);
    assert!(samples.value("process_resident_memory_bytes") > 0.0);
    watched.worker.stop().await;
}

#[tokio::test]
async fn every_process_shows_the_same_of_the_fleet() {
    let world = World::new().await;
    let first = Watched::start(world.worker()).await;
    let second = Watched::start(world.worker()).await;
    for watched in [&first, &second] {
        watched.until_ready().await;
        world
            .until("the lane sends", PATIENCE, async || {
                let sending = app("signaling_lane_state", "state", "sending");
                samples(watched).await.get(&sending) == Some(1.0)
            })
            .await;
    }
    let paused = world.command(&["pause", "default"]).finish().await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    let limited = world.command(&["limit", "default", "102"]).finish().await;
    assert_eq!(limited.code, Some(0), "{limited:?}");
    world.insert_many(7).await;
    world.insert(peer(json!({"due_at": "2100-01-01"}))).await;
    world.insert(peer(json!({"app": "mistake"}))).await;
    world.pretend_worker("aside", "1", "default").await;
    world
        .pretend_aside("aside", "default", "2030-01-31T12:00:00Z", "HTTP 401")
        .await;
    world
        .execute("select signaling.refresh_queue_counts()")
        .await;

    for watched in [&first, &second] {
        world
            .until("the pause shows", PATIENCE, async || {
                let samples = samples(watched).await;
                samples.get("signaling_workers_alive{app=\"default\"}") == Some(3.0)
                    && samples.get(&app("signaling_lane_state", "state", "paused")) == Some(1.0)
                    && samples.get(&app("signaling_backlog_messages", "state", "queued"))
                        == Some(7.0)
            })
            .await;
        let samples = samples(watched).await;
        let names = samples.names("signaling_");
        for name in OF_THE_FLEET {
            assert!(names.contains(name), "{name} is missing");
        }
        for (key, expected) in [
            (app("signaling_backlog_messages", "state", "scheduled"), 1.0),
            (app("signaling_backlog_messages", "state", "retrying"), 0.0),
            (app("signaling_backlog_messages", "state", "sending"), 0.0),
            (
                "signaling_limit_calls_per_second{app=\"default\"}".into(),
                102.0,
            ),
            (
                "signaling_rate_calls_per_second{app=\"default\"}".into(),
                100.0,
            ),
            ("signaling_workers_aside{app=\"default\"}".into(), 1.0),
            ("signaling_database_up".into(), 1.0),
            ("signaling_unserved_messages".into(), 1.0),
        ] {
            let value = samples.value(&key);
            assert!((value - expected).abs() < 0.01, "{key} is {value}");
        }
        assert!(samples.value("signaling_oldest_message_age_seconds{app=\"default\"}") >= 0.0);
        let mistake = "signaling_backlog_messages{app=\"mistake\",state=\"queued\"}";
        assert_eq!(samples.get(mistake), None);
        // A lane is in one state.
        assert!((samples.sum("signaling_lane_state") - 1.0).abs() < 0.01);
    }
}

#[tokio::test]
async fn a_message_that_is_called_is_in_flight() {
    let world = World::new().await;
    world.set_faults(&["hang"]);
    world.insert(peer(json!({}))).await;
    let watched = Watched::start(world.worker()).await;
    world
        .until("it is in flight", PATIENCE, async || {
            let samples = samples(&watched).await;
            samples.get("signaling_in_flight_messages{app=\"default\"}") == Some(1.0)
        })
        .await;
}

#[tokio::test]
async fn a_statement_that_fails_is_counted() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    world
        .insert(peer(json!({"due_at": world.time_in(200).await})))
        .await;
    world
        .execute("alter table signaling.lane rename column rate_at to elsewhere")
        .await;
    world
        .until("a claim has failed", PATIENCE, async || {
            let samples = samples(&watched).await;
            samples.value("signaling_database_errors_total{statement=\"claim\"}") >= 1.0
        })
        .await;
}

#[tokio::test]
async fn a_message_that_can_not_be_looked_up_is_counted_as_an_error() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    let id = world.insert(peer(json!({}))).await;
    world.until_final(id).await;
    let errors = "signaling_database_errors_total{statement=\"read\"}";
    assert!(samples(&watched).await.get(errors).unwrap_or(0.0) < 0.5);
    world
        .execute("alter table signaling.attempt rename column duration to elsewhere")
        .await;
    let answer = watched.door.get(&format!("/messages/{id}")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(samples(&watched).await.value(errors) > 0.5);
}
