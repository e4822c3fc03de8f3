//! Commands of an operator, and the SQL functions that they call.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use harness::{APP_ID, PATIENCE, Worker, World, assert_contains, fleet, peer};

/// Runs a command of the operator Olga, and returns its output.
async fn run(world: &World, arguments: &[&str]) -> String {
    let command = world.command(arguments).env("USER", "olga");
    command.succeeds().await
}

/// The status as text, and the lane in the status as JSON.
async fn status(world: &World) -> (String, Value) {
    let json = world.run(&["status", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    (world.run(&["status"]).await, json[0]["lane"].clone())
}

fn is_by_olga(name: &Value) -> bool {
    name.as_str().is_some_and(|by| by.starts_with("olga@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_the_calls_of_the_whole_fleet_until_resume_and_a_restart_keeps_it() {
    let world = World::new().await;
    let worker = || world.worker().env("WORKER_RATE", "100");
    let mut workers = fleet(3, worker).await;
    world.insert_many(200).await;
    world.until_accepted(50).await;
    run(
        &world,
        &["pause", "default", "--reason", "the vendor is down"],
    )
    .await;
    // The calls in flight end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.seen().calls;
    assert!(calls < 200, "the pause came too late for this test");
    workers[0].stop().await;
    workers.extend(fleet(1, worker).await);
    world.insert(peer(json!({"payload": "new"}))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");
    let claimed_or_charged = "status = 'pending' and (claim_id is not null or attempts > 0)";
    assert_eq!(world.count(claimed_or_charged).await, 0);

    let (text, shown) = status(&world).await;
    let paused_at: String = world
        .lane("to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')")
        .await;
    let since = format!("since {paused_at}Z");
    assert_contains(&text, &["paused by olga@", ": the vendor is down", &since]);
    assert!(is_by_olga(&shown["paused_by"]), "{shown}");
    assert_eq!(shown["pause_reason"], "the vendor is down");
    let shown_at = shown["paused_at"].as_str().unwrap_or_default();
    assert!(shown_at.starts_with(&paused_at), "{shown}");

    world.run(&["resume", "default"]).await;
    world.until_all_final().await;
    world.assert_sent_once(201).await;
    let (text, shown) = status(&world).await;
    assert!(!text.contains("paused"), "{text}");
    for key in ["paused_at", "paused_by", "pause_reason"] {
        assert_eq!(shown[key], Value::Null, "{key}");
    }
}

#[tokio::test]
async fn an_idle_worker_learns_at_once_that_its_app_was_resumed() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    assert!(world.ask::<bool>("select signaling.pause('default')").await);
    let by: String = world.lane("paused_by").await;
    assert_eq!(by, world.ask::<String>("select session_user::text").await);
    let id = world.insert(peer(json!({}))).await;
    worker.until_logged("lane_paused").await;
    assert_eq!(world.row(id).await.status, "pending");
    let resumed_at = Instant::now();
    let resumed: String = world.ask("select signaling.resume('default')").await;
    assert_eq!(resumed, "resumed");
    world.until_final(id).await;
    let waited = resumed_at.elapsed();
    assert!(waited < Duration::from_secs(5), "sent {waited:?} later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_changes_the_pace_of_running_workers_and_outlasts_them() {
    let world = World::new().await;
    let mut workers = fleet(2, || world.worker().env("WORKER_RATE", "200")).await;
    world.insert_many(800).await;
    world.until_accepted(50).await;
    run(&world, &["limit", "default", "50"]).await;
    let from = world.seen().apps[APP_ID].last_at_us + 500_000;
    let two_seconds = from..from + 2_000_000;
    let are_over = async || world.seen().apps[APP_ID].last_at_us > two_seconds.end;
    world
        .until("two seconds are over", PATIENCE, are_over)
        .await;
    let mut calls = world.simulator.ledger().calls();
    calls.retain(|call| two_seconds.contains(&call.at_us));
    assert!((50..=102).contains(&calls.len()), "{} calls", calls.len());

    for worker in &mut workers {
        worker.stop().await;
    }
    let _worker = fleet(1, || world.worker().env("WORKER_RATE", "400")).await;
    let limits =
        "array[limit_per_s, configured_per_s, round((rate_per_s * 1.02)::numeric, 6)]::float8[]";
    assert_eq!(world.lane::<Vec<f64>>(limits).await, [50.0, 400.0, 50.0]);
    let (text, shown) = status(&world).await;
    assert_contains(&text, &["limit 50 calls/s, set by olga@"]);
    assert_eq!(shown["limit_per_s"], 50.0);
    assert!(is_by_olga(&shown["limit_set_by"]), "{shown}");

    let before = world.count("status = 'pending'").await;
    assert!(before > 300, "{before} are left");
    assert_eq!(
        run(&world, &["limit", "default", "configured"]).await,
        "default makes at most the configured 400 calls/s now\n"
    );
    let begun = Instant::now();
    world.until_all_final().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{before} took {took:?}");
    assert_eq!(world.lane::<Vec<f64>>(limits).await, [400.0, 400.0, 400.0]);
    let is_configured = "limit_set_by is null and limit_set_at is null";
    assert!(world.lane::<bool>(is_configured).await);
    world.assert_sent_once(800).await;
}

#[tokio::test]
async fn a_limit_outside_of_its_range_is_refused() {
    for limit in ["0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
        let arguments = ["limit", "default", "--", limit];
        let command = Worker::on("postgres://127.0.0.1:1/none", &arguments);
        command.fails(2, &["1,000,000"]).await;
    }
}
