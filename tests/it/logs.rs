//! The logs of a worker: each state change once, and no line per message.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use harness::{
    API_KEY, API_SECRET, PATIENCE, Postgres, Running, World, app_table, basic, execute, log_lines,
    peer,
};

/// Inserts messages until each worker has logged an event with a field.
async fn until_all_have_logged(world: &World, workers: &[Running], event: &str, field: &str) {
    let have_logged = async || {
        world.insert(peer(json!({}))).await;
        let has_logged = |worker| logged_with(worker, event, field) > 0;
        workers.iter().all(has_logged)
    };
    let what = format!("{event} {field}");
    world.until(&what, PATIENCE, have_logged).await;
}

/// The number of logged lines of an event with a field. An empty field is in every line.
fn logged_with(worker: &Running, event: &str, field: &str) -> usize {
    log_lines(&worker.stderr.text(), event)
        .iter()
        .filter(|line| line.contains(field))
        .count()
}

#[tokio::test]
async fn five_hundred_messages_with_failures_log_a_few_lines_and_none_each() {
    let world = World::new().await;
    world.set_faults(&["400:share=0.1", "500:share=0.1"]);
    world.insert_many(500).await;
    let mut worker = world.worker().start();
    world.until_all_final().await;
    worker.stop().await;
    assert!(world.count("status = 'failed'").await > 0);
    assert!(world.count("attempts > 1").await > 0);
    let log = worker.stderr.text();
    for event in ["worker_started", "worker_stopped"] {
        assert_eq!(worker.logged(event), 1, "{log}");
    }
    assert!(log.lines().count() <= 8, "{log}");
    assert!(!log.contains("message_id"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_logs_a_lane_change_once_and_its_end_once() {
    let world = World::new().await;
    let mut workers: Vec<_> = (0..2).map(|_| world.worker().start()).collect();
    until_all_have_logged(&world, &workers, "worker_started", "").await;

    world.set_faults(&["500"]);
    until_all_have_logged(&world, &workers, "lane_held", "hold=\"unavailable\"").await;
    world.set_faults(&[]);
    until_all_have_logged(&world, &workers, "lane_released", "").await;

    world.simulator.behaviour().credentials = basic(API_KEY, "another secret");
    until_all_have_logged(&world, &workers, "lane_held", "hold=\"unauthorized\"").await;
    world.simulator.behaviour().credentials = basic(API_KEY, API_SECRET);
    let is_back = |worker: &Running| worker.logged("lane_released") == 2;
    let are_back = async || workers.iter().all(is_back);
    world.until("both are back", PATIENCE, are_back).await;

    world.run(&["pause", "default"]).await;
    until_all_have_logged(&world, &workers, "lane_paused", "").await;
    world.run(&["resume", "default"]).await;
    until_all_have_logged(&world, &workers, "lane_released", "hold=\"paused\"").await;

    world.set_faults(&["429:count=1"]);
    until_all_have_logged(&world, &workers, "lane_throttled", "").await;
    until_all_have_logged(&world, &workers, "lane_rate_restored", "").await;

    for worker in &mut workers {
        worker.stop().await;
        for (event, field) in [
            ("lane_held", "hold=\"unavailable\""),
            ("lane_held", "hold=\"unauthorized\""),
            ("lane_released", "hold=\"unavailable\""),
            ("lane_released", "hold=\"unauthorized\""),
            ("lane_paused", ""),
            ("lane_released", "hold=\"paused\""),
            ("lane_throttled", ""),
            ("lane_rate_restored", ""),
        ] {
            assert_eq!(logged_with(worker, event, field), 1, "{event} {field}");
        }
        let log = worker.stderr.text();
        let mut lines = log.lines().filter(|line| line.contains("event=\"lane_"));
        assert_eq!(lines.clone().count(), 8, "{log}");
        assert!(lines.all(|line| line.contains("app=\"default\"")), "{log}");
    }
}

#[tokio::test]
async fn an_outage_of_the_database_is_logged_once_for_all_apps_and_so_is_its_end() {
    let world = World::new().await;
    let apps = ["one", "two", "three"].map(|app| app_table(app, ""));
    let mut worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &apps.concat())
        .env("WORKER_LOG", "info,signaling_worker=debug")
        .start();
    world.until_idle().await;

    let database: String = world.ask("select current_database()::text").await;
    // A connection to the same database would be refused, too.
    let admin_url = Postgres::shared().await.cluster.admin_url();
    let mut admin = PgConnection::connect(&admin_url).await.expect("connected");
    let mut allow = async |allowed: bool| {
        let statement = format!("alter database {database} allow_connections {allowed}");
        execute(&mut admin, &statement).await;
    };
    allow(false).await;
    world.terminate_workers().await;
    let lanes_failed = async || worker.logged("claim_failed") == 2;
    world.until("all lanes fail", PATIENCE, lanes_failed).await;
    allow(true).await;
    worker.until_logged("database_restored").await;
    worker.until_logged("listener_restored").await;
    worker.stop().await;
    for event in [
        "database_failed",
        "database_restored",
        "listener_lost",
        "listener_restored",
    ] {
        assert_eq!(worker.logged(event), 1, "{event}");
    }
}

#[tokio::test]
async fn json_logs_are_objects_with_the_same_fields_in_each_line() {
    let world = World::new().await;
    world.set_faults(&["401:count=2"]);
    let mut worker = world.worker().env("WORKER_LOG_FORMAT", "json").start();
    world.insert(peer(json!({}))).await;
    worker.until_logged("lane_released").await;
    worker.stop().await;

    let log = worker.stderr.text();
    let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    let lines: Vec<Value> = log.lines().map(json).collect();
    for line in &lines {
        let timestamp = line["timestamp"].as_str().expect("a timestamp");
        let at = OffsetDateTime::parse(timestamp, &Rfc3339).expect("of RFC 3339");
        assert!(at.offset().is_utc() && timestamp.ends_with('Z'), "{line}");
        let level = line["level"].as_str().expect("a level");
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
        assert!(line["message"].is_string(), "{line}");
    }
    let line = |event: &str| {
        let line = lines.iter().find(|line| line["event"] == event);
        line.unwrap_or_else(|| panic!("no {event}: {log}"))
    };
    let started = line("worker_started");
    assert_eq!(started["apps"], "default");
    assert_eq!(started["traces"], false);
    let held = line("lane_held");
    for (key, value) in [
        ("app", "default"),
        ("hold", "unauthorized"),
        ("reason", "HTTP 401"),
    ] {
        assert_eq!(held[key], value);
    }
    assert_eq!(line("lane_released")["app"], "default");
    assert!(!log.contains('\u{1b}'), "no colours");
}

/// Also the lines below the usual level. The log has no lines of libraries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_run_with_many_faults_names_its_event() {
    let world = World::new().await;
    world
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
             create trigger refuse before update on signaling.outbox for each row
             when (new.finished_at is not null and new.payload = 'refused') execute function refuse()",
        )
        .await;
    let mut worker = world
        .worker()
        .env("WORKER_LOG_FORMAT", "json")
        .env("WORKER_LOG", "signaling_worker=trace")
        .env("WORKER_OPS_ADDR", "127.0.0.1:0")
        .start();
    let workers = std::slice::from_mut(&mut worker);
    for (faults, hold) in [
        ("500", "\"hold\":\"unavailable\""),
        ("401", "\"hold\":\"unauthorized\""),
    ] {
        world.set_faults(&[faults]);
        until_all_have_logged(&world, workers, "lane_held", hold).await;
        world.set_faults(&[]);
        world.until_all_final().await;
    }
    world.set_faults(&["429:count=1"]);
    until_all_have_logged(&world, workers, "lane_throttled", "").await;
    world.insert(peer(json!({"payload": "refused"}))).await;
    worker.until_logged("record_refused").await;
    world.terminate_workers().await;
    worker.until_logged("listener_restored").await;
    worker.stop().await;

    let log = worker.stderr.text();
    let event = |line: &str| {
        let json: Value = serde_json::from_str(line).unwrap_or_default();
        let event = json["event"].as_str().map(str::to_owned);
        event.unwrap_or_else(|| panic!("no event: {line}"))
    };
    let events: BTreeSet<String> = log.lines().map(event).collect();
    let is_name = |event: &String| event.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(events.iter().all(is_name), "{events:?}");
    assert!(events.len() >= 12, "too few faults: {events:?}");
    for event in ["ops_server_started", "attempt_finished", "worker_stopped"] {
        assert!(events.contains(event), "{event}: {events:?}");
    }
}
