//! What a worker tells people at the usual level: what concerns them, once.

use serde_json::{Value, json};
use simulator::{Behaviour, SimulatorConfig};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use testkit::{API_KEY, API_SECRET, PATIENCE, Postgres, Running, World, basic, peer};

/// Waits until each of these has said so, while messages go on coming in.
async fn until_all_have_said(world: &World, workers: &[Running], text: &str) {
    world
        .until(text, PATIENCE, async || {
            world.insert(peer(json!({}))).await;
            workers
                .iter()
                .all(|worker| worker.stderr.text().contains(text))
        })
        .await;
}

fn lines_with(worker: &Running, text: &str) -> usize {
    let log = worker.stderr.whole_text();
    log.lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn five_hundred_messages_and_their_failures_are_a_handful_of_lines_and_none_for_a_message() {
    let world = World::new().await;
    world.set_faults(&["400:share=0.1", "500:share=0.1"]);
    world.insert_many(500).await;
    let mut worker = world.worker().start();
    world.until_all_final().await;
    worker.stop().await;
    assert!(world.count("status = 'failed'").await > 0);
    assert!(world.count("attempts > 1").await > 0);
    let log = worker.stderr.whole_text();
    assert!(log.contains("worker started"), "{log}");
    assert!(log.contains("stopped: everything is recorded"), "{log}");
    assert!(log.lines().count() <= 8, "{log}");
    assert!(!log.contains("message_id"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_says_once_that_a_lane_is_held_slowed_or_paused_and_once_that_it_is_back() {
    let world = World::new().await;
    let mut workers: Vec<_> = (0..2).map(|_| world.worker().start()).collect();
    until_all_have_said(&world, &workers, "worker started").await;

    world.set_faults(&["500"]);
    until_all_have_said(&world, &workers, "hold=\"unavailable\"").await;
    world.set_faults(&[]);
    until_all_have_said(&world, &workers, "lane released").await;

    world.set_credentials(basic(API_KEY, "another secret"));
    until_all_have_said(&world, &workers, "hold=\"unauthorized\"").await;
    world.set_credentials(basic(API_KEY, API_SECRET));
    world
        .until("both are back", PATIENCE, async || {
            workers
                .iter()
                .all(|worker| lines_with(worker, "lane released") == 2)
        })
        .await;

    let pause = ["pause", "default", "--reason", "a test"];
    assert_eq!(world.command(&pause).finish().await.code, Some(0));
    until_all_have_said(&world, &workers, "lane paused").await;
    let resume = ["resume", "default"];
    assert_eq!(world.command(&resume).finish().await.code, Some(0));
    until_all_have_said(&world, &workers, "lane resumed").await;

    world.set_faults(&["429:count=1"]);
    until_all_have_said(&world, &workers, "lane slowed").await;
    until_all_have_said(&world, &workers, "lane back at its full rate").await;

    for worker in &mut workers {
        worker.stop().await;
        for (text, times) in [
            ("hold=\"unavailable\"", 1),
            ("hold=\"unauthorized\"", 1),
            ("lane released", 2),
            ("lane paused", 1),
            ("lane resumed", 1),
            ("lane slowed", 1),
            ("lane back", 1),
        ] {
            assert_eq!(lines_with(worker, text), times, "{text}");
        }
        let of_the_lane = lines_with(worker, "lane ");
        assert_eq!(of_the_lane, lines_with(worker, "app=\"default\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_allows_less_than_the_limit_is_told_of_once_and_not_with_each_429() {
    let world = World::with(SimulatorConfig {
        behaviour: Behaviour {
            limit: Some(100),
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    })
    .await;
    world.insert_many(900).await;
    let mut worker = world
        .worker()
        .env("WORKER_LOG", "info,signaling_worker=debug")
        .start();
    world.until_all_final().await;
    worker.stop().await;
    assert!(lines_with(&worker, "a 429 has cut the rate") > 3);
    assert_eq!(lines_with(&worker, "lane slowed"), 1);
}

#[tokio::test]
async fn a_database_that_is_away_is_told_of_once_for_all_apps_and_so_is_its_return() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("apps.toml");
    let apps: String = ["one", "two", "three"]
        .map(|app| {
            format!(
                "[apps.{app}]\napp_id = \"{app}\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\n"
            )
        })
        .concat();
    std::fs::write(&path, apps).expect("written");
    let mut worker = world
        .worker_without_app()
        .env("WORKER_CONFIG", path.to_str().expect("a path"))
        .env("WORKER_LOG", "info,signaling_worker=debug")
        .start();
    worker.until_logged("worker started").await;
    world.until_asleep().await;

    let database: String = world.ask("select current_database()::text").await;
    // Not from within it.
    let admin_url = Postgres::shared().await.cluster.admin_url();
    let mut admin = PgConnection::connect(&admin_url).await.expect("connected");
    let mut allow = async |allowed: bool| {
        let statement = format!("alter database {database} allow_connections {allowed}");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut admin)
            .await
            .expect("altered");
    };
    allow(false).await;
    world
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'signaling-worker'",
        )
        .await;
    world
        .until("all lanes have noticed", PATIENCE, async || {
            lines_with(&worker, "fails for this app, too") == 2
        })
        .await;
    allow(true).await;
    worker.until_logged("the database answers again").await;
    worker.until_logged("the doorbell is heard again").await;
    worker.stop().await;
    for text in [
        "the database fails: trying again",
        "the database answers again",
        "the doorbell is lost",
        "the doorbell is heard again",
    ] {
        assert_eq!(lines_with(&worker, text), 1, "{text}");
    }
}

#[tokio::test]
async fn json_logs_are_objects_with_the_same_fields_in_each_line() {
    let world = World::new().await;
    world.set_faults(&["401:count=1"]);
    let mut worker = world.worker().env("WORKER_LOG_FORMAT", "json").start();
    let id = world.insert(peer(json!({}))).await;
    world.until_final(id).await;
    worker.until_logged("lane released").await;
    worker.stop().await;

    let lines: Vec<Value> = worker
        .stderr
        .whole_text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    for line in &lines {
        let timestamp = line["timestamp"].as_str().expect("a timestamp");
        let at = OffsetDateTime::parse(timestamp, &Rfc3339).expect("of RFC 3339");
        assert!(at.offset().is_utc() && timestamp.ends_with('Z'), "{line}");
        let level = line["level"].as_str().expect("a level");
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
        assert!(line["message"].is_string(), "{line}");
    }
    let line = |text: &str| {
        lines
            .iter()
            .find(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|it| it.starts_with(text))
            })
            .unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
    };
    let started = line("worker started");
    assert_eq!(started["apps"], "default");
    assert_eq!(started["traces"], false);
    let held = line("lane held");
    assert_eq!(
        (&held["app"], &held["hold"]),
        (&json!("default"), &json!("unauthorized"))
    );
    assert_eq!(held["reason"], "HTTP 401");
    assert_eq!(line("lane released")["app"], "default");
    assert!(!worker.stderr.whole_text().contains('\u{1b}'), "no colours");
}
