//! `worker status`

use serde_json::{Value, json};

use harness::{PATIENCE, World, assert_contains, peer};

async fn status_json(world: &World) -> Value {
    let printed = world.run(&["status", "--json"]).await;
    serde_json::from_str(&printed).expect("JSON")
}

async fn assert_shown(world: &World, phrases: &[&str]) {
    assert_contains(&world.run(&["status"]).await, phrases);
}

#[tokio::test]
async fn an_empty_outbox_is_reported() {
    let world = World::new().await;
    assert_shown(&world, &["no app has a message or a worker yet"]).await;
    assert_eq!(status_json(&world).await, json!([]));
}

#[tokio::test]
async fn an_old_count_is_shown_with_its_age() {
    let world = World::new().await;
    world.insert(peer(json!({}))).await;
    world
        .execute("select signaling.refresh_queue_counts()")
        .await;
    world
        .execute("update signaling.queue_counts_turn set counted_at = now() - interval '2 hours'")
        .await;
    world
        .alter_database("set default_transaction_read_only = on")
        .await;
    assert_shown(&world, &["1 queued, as counted 2h"]).await;
}

#[tokio::test]
async fn status_shows_messages_and_calls_of_each_app() {
    let world = World::new().await;
    world.set_faults(&["400:destination=never"]);
    for destination in ["one", "two", "never"] {
        world
            .insert(peer(json!({"destination": destination})))
            .await;
    }
    let mut worker = world.worker().start();
    world.until_all_final().await;
    let rate = status_json(&world).await[0]["rate_per_s"].as_f64();
    let rate = rate.expect("a number");
    assert!(rate > 0.0 && rate < 0.4, "{rate} calls/s in ten seconds");
    worker.stop().await;
    world.insert(peer(json!({"due_at": "2100-01-01"}))).await;
    world.insert(peer(json!({"app": "other"}))).await;
    world
        .insert(peer(json!({"app": "other", "due_at": "2001-01-01"})))
        .await;

    // The command makes no new count soon after the last one.
    let are_counted = async || status_json(&world).await[1]["pending"]["queued"] == 2;
    world
        .until("all that waits is counted", PATIENCE, are_counted)
        .await;
    let apps = status_json(&world).await;
    assert_eq!(apps.as_array().map(Vec::len), Some(2));
    let (default, other) = (&apps[0], &apps[1]);
    assert_eq!(
        (&default["app"], &other["app"]),
        (&json!("default"), &json!("other"))
    );
    let pending = |app: &Value| {
        ["queued", "scheduled", "retrying", "sending"].map(|state| app["pending"][state].clone())
    };
    let is_within = |value: &Value, low: f64, high: f64| {
        let number = value.as_f64().expect("a number");
        assert!((low..=high).contains(&number), "{number}");
    };
    assert_eq!(pending(default), [0, 1, 0, 0]);
    let finished = json!({"message_sent": 2, "failed": 1});
    assert_eq!(default["finished_24h"], finished);
    assert_eq!(default["pending"]["oldest_s"], Value::Null);
    assert_eq!(default["last_hour"]["calls_rejected"], 1);
    is_within(
        &default["queue_wait_last_hour"]["p50_s"],
        f64::MIN_POSITIVE,
        f64::MAX,
    );
    assert_eq!(default["lane"]["limit_per_s"], 500.0);
    is_within(&default["lane"]["rate_per_s"], 480.0, 500.0);
    assert_eq!(default["lane"]["hold"], Value::Null);
    assert_eq!(pending(other), [2, 0, 0, 0]);
    assert_eq!(other["finished_24h"], json!({}));
    assert_eq!(other["lane"], Value::Null);
    // A message waits since its insert.
    is_within(&other["pending"]["oldest_s"], 0.0, 3_600.0);
    let phrases = [
        "default",
        "other",
        "1 scheduled",
        "2 message_sent",
        "1 failed",
        "2 queued",
        "calls/s",
        "500",
    ];
    assert_shown(&world, &phrases).await;
}

#[tokio::test]
async fn a_held_lane_is_shown_with_the_reason() {
    let world = World::new().await;
    world.set_faults(&["401"]);
    world.insert(peer(json!({}))).await;
    let worker = world.worker().start();
    worker.until_logged("lane_held").await;
    let lane = &status_json(&world).await[0]["lane"];
    assert_eq!(lane["hold"], "unauthorized");
    let reason = lane["hold_reason"].as_str().unwrap_or_default();
    assert_contains(reason, &["401"]);
    let has_times = lane["hold_since"].is_string() && lane["hold_until"].is_string();
    assert!(has_times, "{lane}");
    assert_shown(&world, &["unauthorized since", "HTTP 401"]).await;
}

#[tokio::test]
async fn status_shows_whether_an_app_sends_and_which_workers_serve_it() {
    let world = World::new().await;
    world.open_lane("default").await;
    let no_worker = ["lane       no worker", "0 alive", ": start a worker"];
    assert_shown(&world, &no_worker).await;
    world.pretend_worker("killed", "1", "default").await;
    world
        .execute("update signaling.worker set seen_at = now() - interval '1 minute'")
        .await;
    assert_shown(&world, &no_worker).await;
    assert_eq!(status_json(&world).await[0]["lane"]["workers"]["alive"], 0);

    for (name, app) in [("older", "default"), ("of-another-app", "other")] {
        world.pretend_worker(name, "1", app).await;
    }
    assert_shown(&world, &["lane       sending", "workers    1 alive\n"]).await;
    assert_eq!(status_json(&world).await[0]["lane"]["workers"]["alive"], 1);

    world.pretend_worker("newer", "2", "default").await;
    world
        .pretend_aside("older", "default", "2030-01-31T12:00:00Z", "HTTP 401")
        .await;
    let phrase = "2 alive, 1 aside: `worker workers` shows why\n";
    assert_shown(&world, &[phrase]).await;
    assert_eq!(status_json(&world).await[0]["lane"]["workers"]["aside"], 1);
}

#[tokio::test]
async fn the_view_shows_the_state_of_a_message() {
    let world = World::new().await;
    world.set_faults(&["hang:destination=hangs", "500:destination=fails"]);
    let mut expected = Vec::new();
    for (columns, state) in [
        (json!({"due_at": "2100-01-01"}), "scheduled"),
        (json!({"app": "unserved"}), "queued"),
        (json!({"destination": "hangs"}), "sending"),
        (json!({"destination": "fails"}), "retrying"),
        (json!({}), "message_sent"),
    ] {
        expected.push((world.insert(peer(columns)).await, state));
    }
    let _worker = world
        .worker()
        .env("WORKER_RETRY_BASE", "60s")
        .env("WORKER_RETRY_CAP", "5m")
        .start();
    for (id, state) in expected {
        world
            .until_true(&format!(
                "select state = '{state}' from signaling.delivery where id = {id}"
            ))
            .await;
    }
}
