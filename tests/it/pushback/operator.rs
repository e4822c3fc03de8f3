//! A person steps in: by the command line, or by the same functions in SQL.

use std::time::Duration;

use serde_json::{Value, json};

use super::lane;
use testkit::fleet;
use testkit::{APP_ID, Finished, PATIENCE, Worker, World, peer};

/// A command of somebody called olga.
pub(super) fn olga(world: &World, arguments: &[&str]) -> Worker {
    world.command(arguments).env("USER", "olga")
}

/// The output of a command that succeeds.
pub(super) async fn done(world: &World, arguments: &[&str]) -> String {
    let finished = olga(world, arguments).finish().await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

pub(super) async fn ends_with(
    world: &World,
    arguments: &[&str],
    code: i32,
    phrases: &[&str],
) -> Finished {
    let finished = olga(world, arguments).finish().await;
    assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
    for phrase in phrases {
        assert!(
            finished.stderr.contains(phrase),
            "{phrase:?} is missing: {arguments:?}: {finished:?}"
        );
    }
    finished
}

async fn status(world: &World) -> (String, Value) {
    let json = done(world, &["status", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    (done(world, &["status"]).await, json[0]["lane"].clone())
}

/// A lane without a worker.
pub(super) async fn open_lane(world: &World, app: &str) {
    world
        .execute(&format!(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
             values ('{app}', 100, 100, signaling.slot_rate(100))"
        ))
        .await;
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
        "default is paused: no call starts until `worker resume default`, and calls in flight are finished\n"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.seen().calls;
    assert!(calls < 200, "it was too late for this test");
    world.insert(peer(json!({"payload": "new"}))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");
    assert_eq!(
        world
            .count("claim_id is not null and status = 'pending'")
            .await,
        0,
        "what was not sent went back"
    );
    assert_eq!(world.count("status = 'pending' and attempts > 0").await, 0);

    let (text, shown) = status(&world).await;
    assert!(
        text.contains("paused by olga@") && text.contains(": the vendor is down"),
        "{text}"
    );
    assert!(
        shown["paused_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("olga@")),
        "{shown}"
    );
    assert_eq!(shown["pause_reason"], "the vendor is down");
    let paused_at: String = lane(
        &world,
        "to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')",
    )
    .await;
    assert!(
        shown["paused_at"]
            .as_str()
            .is_some_and(|at| at.starts_with(&paused_at)),
        "{shown}"
    );
    assert!(text.contains(&format!("since {paused_at}Z")), "{text}");

    // Again is no news, and who paused it first is who paused it.
    let again = done(&world, &["pause", "default", "--reason", "me too"]).await;
    assert!(again.contains("paused already"), "{again}");
    assert!(
        !world
            .ask::<bool>("select signaling.pause('default', 'and me')")
            .await
    );
    assert_eq!(
        lane::<String>(&world, "pause_reason").await,
        "the vendor is down"
    );

    assert_eq!(
        done(&world, &["resume", "default"]).await,
        "default: resumed\n"
    );
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        201
    );
    assert_eq!(
        done(&world, &["resume", "default"]).await,
        "default: nothing changed: the app was not paused, and the API has asked for no wait\n"
    );
    assert!(
        world
            .ask::<bool>("select signaling.resume('default') like 'nothing changed%'")
            .await
    );
    let (text, shown) = status(&world).await;
    assert!(!text.contains("paused"), "{text}");
    assert_eq!(
        (
            &shown["paused_at"],
            &shown["paused_by"],
            &shown["pause_reason"]
        ),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn an_idle_worker_learns_at_once_that_its_app_was_resumed() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    assert!(world.ask::<bool>("select signaling.pause('default')").await);
    let by: String = lane(&world, "paused_by").await;
    assert_eq!(by, world.ask::<String>("select session_user::text").await);
    let id = world.insert(peer(json!({}))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.row(id).await.status, "pending");
    let resumed = std::time::Instant::now();
    assert_eq!(
        world
            .ask::<String>("select signaling.resume('default')")
            .await,
        "resumed"
    );
    world.until_final(id).await;
    assert!(
        resumed.elapsed() < Duration::from_secs(5),
        "sent {:?} later",
        resumed.elapsed()
    );
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
    let enough = |summary: &simulator::Summary| summary.apps[APP_ID].last_at_us > from + 2_000_000;
    world
        .simulator
        .ledger()
        .wait_until(PATIENCE, enough)
        .await
        .expect("calls");
    let in_two_seconds = world
        .simulator
        .ledger()
        .calls()
        .iter()
        .filter(|call| (from..from + 2_000_000).contains(&call.at_us))
        .count();
    assert!(
        (50..=102).contains(&in_two_seconds),
        "{in_two_seconds} calls in two seconds"
    );
    let again = done(&world, &["limit", "default", "50"]).await;
    assert!(
        again.starts_with("default makes at most 50 calls/s already, as olga@"),
        "{again}"
    );
    assert!(
        !world
            .ask::<bool>("select signaling.set_limit('default', 50)")
            .await
    );

    for worker in &mut workers {
        worker.stop().await;
    }
    let _worker = fleet(1, || world.worker().env("WORKER_RATE", "400")).await;
    let limits =
        "array[limit_per_s, configured_per_s, round((rate_per_s * 1.02)::numeric, 6)]::float8[]";
    assert_eq!(lane::<Vec<f64>>(&world, limits).await, [50.0, 400.0, 50.0]);
    let (text, shown) = status(&world).await;
    assert!(text.contains("limit 50 calls/s, set by olga@"), "{text}");
    assert_eq!(shown["limit_per_s"], 50.0);
    assert!(
        shown["limit_set_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("olga@")),
        "{shown}"
    );
    assert!(lane::<bool>(&world, "limit_set_at > now() - interval '1 minute'").await);

    let before = world.count("status = 'pending'").await;
    assert!(before > 300, "{before} are left");
    let restored = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(
        restored,
        "default makes at most 400 calls/s now, as its workers are configured\n"
    );
    let begun = std::time::Instant::now();
    world.until_all_final().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{before} messages in {:?}",
        begun.elapsed()
    );
    assert_eq!(
        lane::<Vec<f64>>(&world, limits).await,
        [400.0, 400.0, 400.0]
    );
    assert!(lane::<bool>(&world, "limit_set_by is null and limit_set_at is null").await);
    let again = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(
        again,
        "default makes at most 400 calls/s already, as its workers are configured\n"
    );
    assert!(
        !world
            .ask::<bool>("select signaling.set_limit('default', null)")
            .await
    );
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        800
    );
}

#[tokio::test]
async fn a_limit_that_is_none_is_refused() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    for limit in ["0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
        ends_with(
            &world,
            &["limit", "default", "--", limit],
            2,
            &["1,000,000"],
        )
        .await;
    }
    for limit in ["0", "-5", "0.5", "1000001", "'NaN'", "'Infinity'"] {
        let refused = sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(format!(
            "select signaling.set_limit('default', {limit})"
        )))
        .fetch_one(&world.pool)
        .await
        .expect_err(limit);
        assert!(refused.to_string().contains("limit_per_s"), "{refused}");
    }
    assert!(lane::<bool>(&world, "limit_per_s = 100").await);
}

#[tokio::test]
async fn a_lane_that_a_429_has_slowed_climbs_on_when_its_limit_changes() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    world
        .execute("update signaling.lane set rate_per_s = 20, rate_at = clock_timestamp()")
        .await;
    world
        .execute("select signaling.set_limit('default', 400)")
        .await;
    let rate: f64 = lane(&world, "rate_per_s").await;
    assert!((20.0..30.0).contains(&rate), "{rate}");
    world
        .execute("select signaling.set_limit('default', 10)")
        .await;
    let rate: f64 = lane(&world, "rate_per_s").await;
    assert!((rate - 10.0 / 1.02).abs() < 1e-6, "{rate}");
}

#[tokio::test]
async fn an_unknown_app_is_an_error_that_lists_the_apps() {
    let world = World::new().await;
    for arguments in [
        &["pause", "nobody"][..],
        &["resume", "nobody"],
        &["limit", "nobody", "5"],
    ] {
        ends_with(
            &world,
            arguments,
            1,
            &["there is no app 'nobody'", "no worker has been started yet"],
        )
        .await;
    }
    open_lane(&world, "one").await;
    open_lane(&world, "two").await;
    for arguments in [
        &["pause", "nobody"][..],
        &["resume", "nobody"],
        &["limit", "nobody", "5"],
    ] {
        ends_with(
            &world,
            arguments,
            1,
            &["there is no app 'nobody'", "the apps are: one, two"],
        )
        .await;
    }
    for call in [
        "pause('nobody')",
        "resume('nobody')",
        "set_limit('nobody', 5)",
        "pause(null)",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("select signaling.{call}")))
            .execute(&world.pool)
            .await
            .expect_err(call);
        assert!(refused.to_string().contains("there is no app"), "{refused}");
    }
}

#[tokio::test]
async fn cancel_says_of_each_message_whether_it_did() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(world.insert(peer(json!({}))).await.to_string());
    }
    let said = done(&world, &["cancel", &ids[0], &ids[1]]).await;
    assert_eq!(
        said,
        format!(
            "{0} is cancelled: it was never sent\n{1} is cancelled: it was never sent\n",
            ids[0], ids[1]
        )
    );
    assert_eq!(world.count("status = 'cancelled'").await, 2);
    let other = world.insert(peer(json!({}))).await.to_string();
    let finished = ends_with(
        &world,
        &["cancel", &ids[0], &other, "4711"],
        1,
        &["not all messages were cancelled"],
    )
    .await;
    for line in [
        format!("{} was cancelled already, at 2", ids[0]),
        format!("{other} is cancelled"),
        "4711 is not cancelled: there is no such message".to_owned(),
    ] {
        assert!(finished.stdout.contains(&line), "{finished:?}");
    }
    assert_eq!(world.count("status = 'cancelled'").await, 3);
}
