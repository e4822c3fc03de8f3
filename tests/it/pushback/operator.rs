//! Commands of an operator, and the SQL functions that they call.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use sqlx::AssertSqlSafe;

use testkit::{APP_ID, Finished, PATIENCE, World, fleet, peer};

async fn run(world: &World, arguments: &[&str]) -> Finished {
    world.command(arguments).env("USER", "olga").finish().await
}

/// Runs a command that succeeds, and returns its output.
pub(super) async fn done(world: &World, arguments: &[&str]) -> String {
    let finished = run(world, arguments).await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

/// Runs a command that fails with a code and an error that contains the phrases.
pub(super) async fn fails(world: &World, arguments: &[&str], code: i32, phrases: &[&str]) {
    let finished = run(world, arguments).await;
    assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
    for phrase in phrases {
        let is_there = finished.stderr.contains(phrase);
        assert!(
            is_there,
            "{phrase:?} is missing: {arguments:?}: {finished:?}"
        );
    }
}

/// The error of a statement that Postgres refuses.
pub(super) async fn refusal(world: &World, statement: &str) -> String {
    let executed = sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&world.pool)
        .await;
    executed.expect_err(statement).to_string()
}

fn is_by_olga(name: &Value) -> bool {
    name.as_str().is_some_and(|by| by.starts_with("olga@"))
}

async fn status(world: &World) -> (String, Value) {
    let json = done(world, &["status", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    (done(world, &["status"]).await, json[0]["lane"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_the_calls_of_the_whole_fleet_and_resume_goes_on() {
    let world = World::new().await;
    let _fleet = fleet(3, || world.worker().env("WORKER_RATE", "100")).await;
    world.insert_many(200).await;
    world.until_accepted(50).await;
    let pause = ["pause", "default", "--reason", "the vendor is down"];
    assert_eq!(
        done(&world, &pause).await,
        "default is paused: no call starts until `worker resume default`, and the workers finish calls in flight\n"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.seen().calls;
    assert!(calls < 200, "the pause came too late for this test");
    world.insert(peer(json!({"payload": "new"}))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");
    let claimed_or_charged = "status = 'pending' and (claim_id is not null or attempts > 0)";
    assert_eq!(world.count(claimed_or_charged).await, 0);

    let (text, shown) = status(&world).await;
    assert!(
        text.contains("paused by olga@") && text.contains(": the vendor is down"),
        "{text}"
    );
    assert!(is_by_olga(&shown["paused_by"]), "{shown}");
    assert_eq!(shown["pause_reason"], "the vendor is down");
    let paused_at: String = world
        .lane("to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')")
        .await;
    let shown_at = shown["paused_at"].as_str().unwrap_or_default();
    assert!(shown_at.starts_with(&paused_at), "{shown}");
    assert!(text.contains(&format!("since {paused_at}Z")), "{text}");

    // A second pause changes neither the operator nor the reason.
    let again = done(&world, &["pause", "default", "--reason", "me too"]).await;
    assert!(again.contains("paused already"), "{again}");
    let is_new: bool = world
        .ask("select signaling.pause('default', 'and me')")
        .await;
    assert!(!is_new);
    let reason: String = world.lane("pause_reason").await;
    assert_eq!(reason, "the vendor is down");

    let resumed = done(&world, &["resume", "default"]).await;
    assert_eq!(resumed, "default: resumed\n");
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
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    assert!(world.ask::<bool>("select signaling.pause('default')").await);
    let by: String = world.lane("paused_by").await;
    assert_eq!(by, world.ask::<String>("select session_user::text").await);
    let id = world.insert(peer(json!({}))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.row(id).await.status, "pending");
    let resumed_at = Instant::now();
    let resumed: String = world.ask("select signaling.resume('default')").await;
    assert_eq!(resumed, "resumed");
    world.until_final(id).await;
    let waited = resumed_at.elapsed();
    assert!(waited < Duration::from_secs(5), "sent {waited:?} later");
}

#[tokio::test]
async fn a_paused_app_stays_paused_over_a_restart_and_its_messages_expire() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    world.until_idle().await;
    world.execute("select signaling.pause('default')").await;
    worker.stop().await;
    let kept = world.insert(peer(json!({}))).await;
    let worker = world.worker().start();
    worker.until_logged("worker_started").await;
    let expiring = world
        .insert(peer(json!({"expires_at": world.time_in(300).await})))
        .await;
    assert_eq!(world.until_final(expiring).await.status, "expired");
    assert_eq!(world.row(kept).await.status, "pending");
    assert_eq!(world.seen().calls, 0);
    world.execute("select signaling.resume('default')").await;
    assert_eq!(world.until_final(kept).await.status, "message_sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_changes_the_pace_of_running_workers_and_outlasts_them() {
    let world = World::new().await;
    let mut workers = fleet(2, || world.worker().env("WORKER_RATE", "200")).await;
    world.insert_many(800).await;
    world.until_accepted(50).await;
    let said = done(&world, &["limit", "default", "50"]).await;
    assert_eq!(said, "default makes at most 50 calls/s now\n");
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
    assert!(text.contains("limit 50 calls/s, set by olga@"), "{text}");
    assert_eq!(shown["limit_per_s"], 50.0);
    assert!(is_by_olga(&shown["limit_set_by"]), "{shown}");
    let holds: bool = world
        .lane("limit_set_at > now() - interval '1 minute'")
        .await;
    assert!(holds);

    let before = world.count("status = 'pending'").await;
    assert!(before > 300, "{before} are left");
    let restored = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(
        restored,
        "default makes at most the configured 400 calls/s now\n"
    );
    let begun = Instant::now();
    world.until_all_final().await;
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "{before} messages in {took:?}"
    );
    let restored: Vec<f64> = world.lane(limits).await;
    assert_eq!(restored, [400.0, 400.0, 400.0]);
    let holds: bool = world
        .lane("limit_set_by is null and limit_set_at is null")
        .await;
    assert!(holds);
    let again = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(
        again,
        "default makes at most the configured 400 calls/s already\n"
    );

    world.assert_sent_once(800).await;
}

#[tokio::test]
async fn a_limit_outside_of_its_range_is_refused() {
    let world = World::new().await;
    world.open_lane("default").await;
    for limit in ["0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
        let arguments = ["limit", "default", "--", limit];
        fails(&world, &arguments, 2, &["1,000,000"]).await;
    }
    assert!(world.lane::<bool>("limit_per_s = 100").await);
}
