//! `worker status`

use serde_json::{Value, json};

use testkit::{PATIENCE, World, assert_contains, peer};

async fn status_json(world: &World) -> Value {
    let finished = world.run(&["status", "--json"]).await;
    serde_json::from_str(&finished).expect("JSON")
}

async fn status_text(world: &World) -> String {
    world.run(&["status"]).await
}

#[tokio::test]
async fn an_empty_outbox_is_reported() {
    let world = World::new().await;
    assert!(
        status_text(&world)
            .await
            .contains("no app has a message or a worker yet")
    );
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
    let text = status_text(&world).await;
    assert!(text.contains("1 queued, as counted 2h"), "{text}");
}

#[tokio::test]
async fn status_shows_pending_and_finished_messages_of_each_app() {
    let world = World::new().await;
    world.set_faults(&["400:destination=never"]);
    for destination in ["one", "two", "never"] {
        world
            .insert(peer(json!({"destination": destination})))
            .await;
    }
    let mut worker = world.worker().start();
    world.until_all_final().await;
    worker.stop().await;
    world.insert(peer(json!({"due_at": "2100-01-01"}))).await;
    world.insert(peer(json!({"app": "other"}))).await;
    world
        .insert(peer(json!({"app": "other", "due_at": "2001-01-01"})))
        .await;

    // A count that was made a moment ago is good enough for the command.
    let holds = async || status_json(&world).await[1]["pending"]["queued"] == 2;
    world
        .until("all that waits is counted", PATIENCE, holds)
        .await;
    let apps = status_json(&world).await;
    let names: Vec<_> = apps
        .as_array()
        .expect("an array")
        .iter()
        .map(|app| &app["app"])
        .collect();
    assert_eq!(names, ["default", "other"]);
    let (default, other) = (&apps[0], &apps[1]);
    let waiting = |app: &Value| {
        ["queued", "scheduled", "retrying", "sending"].map(|state| app["pending"][state].clone())
    };
    assert_eq!(waiting(default), [0, 1, 0, 0]);
    assert_eq!(
        default["finished_24h"],
        json!({"message_sent": 2, "failed": 1})
    );
    assert_eq!(default["pending"]["oldest_s"], Value::Null);
    assert_eq!(default["last_hour"]["calls_rejected"], 1);
    assert!(
        default["queue_wait_last_hour"]["p50_s"]
            .as_f64()
            .is_some_and(|delay_s| delay_s > 0.0)
    );
    assert_eq!(default["lane"]["limit_per_s"], 500.0);
    assert!(
        default["lane"]["rate_per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 480.0 && rate <= 500.0)
    );
    assert_eq!(default["lane"]["hold"], Value::Null);
    assert!(default["rate_per_s"].is_number());
    assert_eq!(waiting(other), [2, 0, 0, 0]);
    assert_eq!(other["finished_24h"], json!({}));
    assert_eq!(other["lane"], Value::Null);
    assert!(
        other["pending"]["oldest_s"]
            .as_f64()
            .is_some_and(|oldest_s| (0.0..3_600.0).contains(&oldest_s)),
        "it waits since its insert"
    );

    let text = status_text(&world).await;
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
    assert_contains(&text, &phrases);
}

/// A date of the `time` crate ends with the year 9999, and adding to one panics beyond.
#[tokio::test]
async fn times_after_the_year_9999_are_shown_as_its_end() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    let holds = async || status_json(&world).await[0]["lane"].is_object();
    world.until("the app has a lane", PATIENCE, holds).await;
    worker.stop().await;
    for (time, shown) in [
        ("infinity", "9999-12-31T23:59:59.999999Z"),
        ("20000-01-01Z", "9999-12-31T23:59:59.999999Z"),
        ("-infinity", "0001-01-01T00:00:00Z"),
        ("0044-03-15Z BC", "0001-01-01T00:00:00Z"),
        ("2030-01-31 12:00Z", "2030-01-31T12:00:00Z"),
    ] {
        world
            .set_lane(&format!("paused_at = '{time}', paused_by = 'ann'"))
            .await;
        assert_eq!(status_json(&world).await[0]["lane"]["paused_at"], shown);
        // The sentence about the pause is that of the database.
        let text = status_text(&world).await;
        assert!(text.contains("paused by ann since "), "{text}");
    }
}

#[tokio::test]
async fn status_shows_the_rate_of_the_last_seconds() {
    let world = World::new().await;
    world.insert_many(50).await;
    let _worker = world.worker().start();
    world.until_all_final().await;
    let rate = status_json(&world).await[0]["rate_per_s"]
        .as_f64()
        .expect("a number");
    assert!(rate > 0.0 && rate <= 5.0, "{rate} calls/s");
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
    assert!(
        lane["hold_reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("401")),
        "{lane}"
    );
    assert!(
        lane["hold_since"].is_string() && lane["hold_until"].is_string(),
        "{lane}"
    );
    let text = status_text(&world).await;
    assert!(
        text.contains("unauthorized since") && text.contains("HTTP 401"),
        "{text}"
    );
}

#[tokio::test]
async fn an_app_without_a_live_worker_is_not_shown_as_sending() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    let holds = async || status_json(&world).await[0]["lane"]["workers"]["alive"] == 1;
    world.until("the worker is alive", PATIENCE, holds).await;
    let text = status_text(&world).await;
    assert_contains(&text, &["lane       sending", "workers    1 alive\n"]);
    worker.kill().await;
    world
        .execute("update signaling.worker set seen_at = seen_at - interval '1 minute'")
        .await;
    let text = status_text(&world).await;
    let phrases = ["lane       no worker", "0 alive", ": start a worker"];
    assert_contains(&text, &phrases);
    assert_eq!(status_json(&world).await[0]["lane"]["workers"]["alive"], 0);
}

#[tokio::test]
async fn workers_that_have_stepped_aside_are_shown() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("older", "1.2.3", "default").await;
    world.pretend_worker("newer", "1.3.0", "default").await;
    world
        .pretend_worker("of-another-app", "9.9.9", "other")
        .await;
    world
        .pretend_aside("older", "default", "2030-01-31T12:00:00Z", "HTTP 401")
        .await;
    let text = status_text(&world).await;
    let phrases = ["2 alive, 1 aside: `worker workers` shows why\n"];
    assert_contains(&text, &phrases);
    assert_eq!(status_json(&world).await[0]["lane"]["workers"]["aside"], 1);
}

#[tokio::test]
async fn a_lane_that_waits_for_retry_after_is_shown_with_the_end() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("the-worker", "1", "default").await;
    world
        .set_lane("retry_after_until = '2100-01-01T00:00:00Z'")
        .await;
    let text = status_text(&world).await;
    let phrase = "no call before 2100-01-01T00:00:00Z, as the API asked; `worker resume default`";
    assert_contains(&text, &[phrase]);
    world.run(&["resume", "default"]).await;
    let text = status_text(&world).await;
    assert!(text.contains("lane       sending"), "{text}");
}

#[tokio::test]
async fn the_view_shows_the_state_of_a_message() {
    let world = World::new().await;
    world.set_faults(&["hang:destination=hangs", "500:destination=fails"]);
    let scheduled = world.insert(peer(json!({"due_at": "2100-01-01"}))).await;
    let queued = world.insert(peer(json!({"app": "unserved"}))).await;
    let sending = world.insert(peer(json!({"destination": "hangs"}))).await;
    let retrying = world.insert(peer(json!({"destination": "fails"}))).await;
    let sent = world.insert(peer(json!({}))).await;
    let _worker = world
        .worker()
        .env("WORKER_RETRY_BASE", "60s")
        .env("WORKER_RETRY_CAP", "5m")
        .start();
    for (id, state) in [
        (scheduled, "scheduled"),
        (queued, "queued"),
        (sending, "sending"),
        (retrying, "retrying"),
        (sent, "message_sent"),
    ] {
        world
            .until(&format!("message {id} is {state}"), PATIENCE, async || {
                world
                    .ask::<String>(&format!(
                        "select state from signaling.delivery where id = {id}"
                    ))
                    .await
                    == state
            })
            .await;
    }
}
