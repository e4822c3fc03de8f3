//! The metrics: their names, and their sums against the API's ledger and the rows.

use std::time::{Duration, Instant};

use serde_json::json;

use super::ops_client::OpsWorker;
use super::prometheus_text::Samples;
use crate::database_proxy::{DatabaseProxy, Network};
use harness::{APP_ID, PATIENCE, World, peer};

const PROCESS_METRICS: [&str; 12] = [
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
const FLEET_METRICS: [&str; 9] = [
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

fn app(name: &str, label: &str, value: &str) -> String {
    format!("{name}{{app=\"default\",{label}=\"{value}\"}}")
}

fn of_app(name: &str) -> String {
    format!("{name}{{app=\"default\"}}")
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The messages of [`insert_messages_of_every_outcome`] that the worker sends for certain.
const CALLED: u32 = 48;
const ALL: u32 = 51;

async fn insert_messages_of_every_outcome(world: &World) {
    world.set_faults(&[
        "500:destination=later,first_calls=2",
        "429:destination=slower,first_calls=1",
        "400:destination=never",
        "drop:destination=dropped,first_calls=1",
        "drop:destination=once",
        "504:destination=gateway,first_calls=1",
    ]);
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
    // One message expires in a claim, one before its due time. A dead worker has lost another one.
    for (due_in_ms, expires_in_ms) in [(-2_000, -1_000), (400, 500)] {
        let due_at = world.time_in(due_in_ms).await;
        let expires_at = world.time_in(expires_in_ms).await;
        let message = json!({"due_at": due_at, "expires_at": expires_at});
        world.insert(peer(message)).await;
    }
    let lost = world.insert(peer(json!({"at_most_once": true}))).await;
    world
        .set_messages(&format!(
            "claim_id = gen_random_uuid(), claimed_by = 'dead', due_at = clock_timestamp() - interval '1 minute' where id = {lost}"
        ))
        .await;
}

#[tokio::test]
async fn the_counters_equal_the_apis_ledger_and_the_rows() {
    let world = World::new().await;
    insert_messages_of_every_outcome(&world).await;
    let mut ops = OpsWorker::start(world.worker()).await;
    world.until_all_final().await;
    // The worker counts a finished message after its record.
    world
        .until("all is counted", PATIENCE, async || {
            Samples::of(&ops)
                .await
                .sum("signaling_messages_finished_total")
                >= f64::from(ALL)
        })
        .await;
    let samples = Samples::of(&ops).await;
    let names = samples.names("signaling_");
    for name in PROCESS_METRICS {
        assert!(names.contains(name), "{name} is missing");
    }

    let seen = &world.seen().apps[APP_ID];
    let answered = |status: u16| float(seen.by_status.get(&status).copied().unwrap_or(0));
    let equal = |what: &str, counted: f64, expected: f64| {
        let is_equal = (counted - expected).abs() < 0.5;
        assert!(is_equal, "{what}: {counted} of {expected}; {seen:?}");
    };
    let ambiguous = answered(504) + float(seen.unanswered);
    let sent = answered(200) - 2.0;
    for (outcome, expected) in [
        ("message_sent", sent),
        ("message_delivered", 1.0),
        ("message_offline", 1.0),
        ("transient", answered(500)),
        ("throttled", answered(429)),
        ("rejected", answered(400)),
        ("ambiguous", ambiguous),
        ("unauthorized", 0.0),
    ] {
        let counted = samples.value(&app("signaling_calls_total", "outcome", outcome));
        equal(outcome, counted, expected);
    }
    let all = samples.sum("signaling_calls_total");
    equal("all", all, float(seen.calls));
    let durations = samples.value(&of_app("signaling_call_duration_seconds_count"));
    equal("durations", durations, float(seen.calls));
    let delays = samples.value(&of_app("signaling_queue_wait_seconds_count"));
    // The message that expires 100 ms after its due time may have been called.
    let bounds = f64::from(CALLED)..=f64::from(CALLED + 1);
    assert!(bounds.contains(&delays), "{delays}");

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
    let in_flight = samples.sum("signaling_in_flight_messages");
    equal("in flight", in_flight, 0.0);
    for statement in ["claim", "record"] {
        let durations = format!(
            "signaling_database_statement_duration_seconds_count{{statement=\"{statement}\"}}"
        );
        assert!(samples.value(&durations) >= 1.0, "{statement}");
    }
    let version = format!(
        "signaling_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    equal("build", samples.value(&version), 1.0);
    assert!(samples.value("process_resident_memory_bytes") > 0.0);
    ops.worker.stop().await;
}

#[tokio::test]
async fn fleet_metrics_are_identical_on_every_worker() {
    let world = World::new().await;
    let first = OpsWorker::start(world.worker()).await;
    let second = OpsWorker::start(world.worker()).await;
    for ops in [&first, &second] {
        ops.until_ready().await;
        world
            .until("the lane sends", PATIENCE, async || {
                let sending = app("signaling_lane_state", "state", "sending");
                Samples::of(ops).await.get(&sending) == Some(1.0)
            })
            .await;
    }
    world.run(&["pause", "default"]).await;
    world.run(&["limit", "default", "102"]).await;
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

    for ops in [&first, &second] {
        world
            .until("the pause shows", PATIENCE, async || {
                let samples = Samples::of(ops).await;
                samples.get(&of_app("signaling_workers_alive")) == Some(3.0)
                    && samples.get(&app("signaling_lane_state", "state", "paused")) == Some(1.0)
                    && samples.get(&app("signaling_backlog_messages", "state", "queued"))
                        == Some(7.0)
            })
            .await;
        let samples = Samples::of(ops).await;
        let names = samples.names("signaling_");
        for name in FLEET_METRICS {
            assert!(names.contains(name), "{name} is missing");
        }
        for (key, expected) in [
            (app("signaling_backlog_messages", "state", "scheduled"), 1.0),
            (app("signaling_backlog_messages", "state", "retrying"), 0.0),
            (app("signaling_backlog_messages", "state", "sending"), 0.0),
            (of_app("signaling_limit_calls_per_second"), 102.0),
            (of_app("signaling_rate_calls_per_second"), 100.0),
            (of_app("signaling_workers_aside"), 1.0),
            ("signaling_database_up".into(), 1.0),
            ("signaling_unserved_messages".into(), 1.0),
        ] {
            let value = samples.value(&key);
            assert!((value - expected).abs() < 0.01, "{key} is {value}");
        }
        assert!(samples.value(&of_app("signaling_oldest_message_age_seconds")) >= 0.0);
        let mistake = "signaling_backlog_messages{app=\"mistake\",state=\"queued\"}";
        assert_eq!(samples.get(mistake), None);
        // The lane has exactly one state.
        assert!((samples.sum("signaling_lane_state") - 1.0).abs() < 0.01);
    }
}

#[tokio::test]
async fn failed_claims_and_queries_of_pages_are_counted() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    let (id, _) = world.deliver(json!({})).await;
    let errors = async |statement: &str| {
        let name = format!("signaling_database_errors_total{{statement=\"{statement}\"}}");
        Samples::of(&ops).await.get(&name).unwrap_or(0.0)
    };
    assert!(errors("read").await < 0.5);
    world
        .execute("alter table signaling.attempt rename column duration to elsewhere")
        .await;
    let response = ops.client.get(&format!("/messages/{id}")).await;
    assert_eq!(response.status, 503, "{response:?}");
    assert!(errors("read").await > 0.5);

    world
        .execute("alter table signaling.lane rename column rate_at to elsewhere")
        .await;
    world.insert(peer(json!({}))).await;
    let are_counted = async || errors("claim").await > 0.5;
    world
        .until("a claim has failed", PATIENCE, are_counted)
        .await;
}

#[tokio::test]
async fn a_scrape_ends_before_prometheus_gives_up_although_the_database_is_silent() {
    let world = World::new().await;
    let proxy = DatabaseProxy::open(&world);
    let ops = OpsWorker::start(world.worker().env("DATABASE_URL", &proxy.url)).await;
    ops.until_ready().await;
    let samples = Samples::of(&ops).await;
    assert_eq!(samples.get("signaling_database_up"), Some(1.0));
    proxy.set(Network::Swallowing);
    let is_down = async || {
        let begun = Instant::now();
        let samples = Samples::of(&ops).await;
        // The interval of docker/prometheus/prometheus.yml.
        assert!(begun.elapsed() < Duration::from_secs(5));
        samples.get("signaling_database_up") == Some(0.0)
    };
    world.until("the database is down", PATIENCE, is_down).await;
}
