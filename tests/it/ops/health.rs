//! Liveness and readiness.

use std::time::Instant;

use serde_json::json;

use super::ops_client::OpsWorker;
use super::prometheus_text::Samples;
use crate::database_proxy::DatabaseProxy;
use crate::schema::roles::Role;
use harness::{PATIENCE, World, assert_contains, peer, slow_api, write};

#[tokio::test]
async fn a_worker_reports_that_it_is_alive_and_ready() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    let alive = ops.client.get("/healthz").await;
    assert_eq!((alive.status, alive.body.as_str()), (200, "alive\n"));

    let ready = ops.client.get("/readyz").await;
    assert_eq!(
        ready.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(ready.body.lines().count(), 5, "{ready:?}");
    let all_ok = ready.body.lines().all(|check| check.starts_with("ok "));
    assert!(all_ok, "{ready:?}");
}

/// Metrics from the database.
const FLEET_METRICS: [&str; 3] = [
    "signaling_lane_state",
    "signaling_limit",
    "signaling_backlog",
];

#[tokio::test]
async fn a_worker_without_its_database_is_alive_and_not_ready() {
    let world = World::new().await;
    let mut proxy = DatabaseProxy::closed(&world);
    let worker = world.worker().env("DATABASE_URL", &proxy.url);
    let mut ops = OpsWorker::start(worker).await;

    ops.until_readiness(503, "FAIL database: not reached yet")
        .await;
    assert_eq!(ops.client.get("/healthz").await.status, 200);
    let samples = Samples::of(&ops).await;
    assert_eq!(samples.get("signaling_database_up"), Some(0.0));
    let action = ops.client.post("/actions/pause", &[], "app=default").await;
    assert_eq!(action.status, 409, "nothing was changed");

    proxy.accept();
    ops.until_ready().await;
    world
        .execute("select signaling.refresh_queue_counts()")
        .await;
    world
        .until("the fleet shows", PATIENCE, async || {
            let samples = Samples::of(&ops).await;
            samples.get("signaling_database_up") == Some(1.0)
                && FLEET_METRICS
                    .iter()
                    .all(|name| !samples.names(name).is_empty())
        })
        .await;

    proxy.close().await;
    ops.until_readiness(503, "FAIL database: unavailable").await;
    assert_eq!(ops.client.get("/healthz").await.status, 200);
    let samples = Samples::of(&ops).await;
    assert_eq!(samples.get("signaling_database_up"), Some(0.0));
    // The worker serves no value from before the outage.
    for stale in FLEET_METRICS {
        assert!(samples.names(stale).is_empty(), "{stale}");
    }
    assert!(samples.get("process_start_time_seconds").is_some());

    proxy.accept();
    ops.until_ready().await;
    world.assert_sends().await;
    ops.worker.stop().await;
}

#[tokio::test]
async fn a_worker_with_a_missing_or_old_schema_is_not_ready() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    for (damage, phrase, repair) in [
        (
            "alter table signaling.schema_migrations rename to elsewhere",
            "FAIL schema: signaling.schema_migrations is empty",
            "alter table signaling.elsewhere rename to schema_migrations",
        ),
        (
            "update signaling.schema_migrations set success = version < 2",
            "FAIL schema: the database's schema is at version 1",
            "update signaling.schema_migrations set success = true",
        ),
    ] {
        world.execute(damage).await;
        ops.until_readiness(503, phrase).await;
        world.execute(repair).await;
        ops.until_ready().await;
    }
}

#[tokio::test]
async fn a_worker_that_shuts_down_is_not_ready_and_responds_until_its_end() {
    let world = World::with(slow_api(3_000)).await;
    let id = world.insert(peer(json!({}))).await;
    let mut ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    world.until_calls(1).await;
    ops.worker.signal("TERM").await;
    ops.until_readiness(503, "FAIL process: shutting down")
        .await;
    assert_eq!(ops.client.get("/healthz").await.status, 200);
    let samples = Samples::of(&ops).await;
    let in_flight = samples.get("signaling_in_flight_messages{app=\"default\"}");
    assert_eq!(in_flight, Some(1.0));
    assert_eq!(ops.worker.wait_exit().await, Some(0));
    assert_eq!(world.row(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_stuck_lane_is_reported_with_its_error_which_the_log_has_too() {
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    let client = world
        .open_transaction("select from signaling.lane where app = 'default' for update")
        .await;
    let id = world.insert(peer(json!({}))).await;
    ops.until_readiness(503, "FAIL lanes: the app default has made no progress for")
        .await;
    let body = ops.client.get("/readyz").await.body;
    assert!(body.contains("ok   database"), "{body}");
    let stuck = body.lines().find(|line| line.contains("no progress"));
    assert!(
        stuck.is_some_and(|line| line.contains("lock timeout")),
        "{body}"
    );
    let line = ops.worker.log_line("database_failed");
    assert!(line.contains("lock timeout"), "{line}");
    client.rollback().await.expect("unlocked");
    ops.until_ready().await;
    world.until_final(id).await;
}

#[tokio::test]
async fn a_held_paused_or_refused_app_leaves_its_worker_ready() {
    let world = World::new().await;
    world.set_faults(&["401"]);
    world.insert(peer(json!({}))).await;
    let ops = OpsWorker::start(world.worker()).await;
    let until_ready_and = async |state: &str| {
        let gauge = format!("signaling_lane_state{{app=\"default\",state=\"{state}\"}} 1");
        let until = async || ops.client.get("/metrics").await.body.contains(&gauge);
        world.until(state, PATIENCE, until).await;
        ops.until_ready().await;
    };
    until_ready_and("unauthorized").await;
    world.run(&["pause", "default"]).await;
    until_ready_and("paused").await;
    world.run(&["resume", "default"]).await;
    let changes = "environment = 'production', hold = null, hold_reason = null, hold_since = null,
                   hold_until = null";
    world.set_lane(changes).await;
    until_ready_and("other_environment").await;
}

#[tokio::test]
async fn a_worker_with_a_rotated_password_is_not_ready_and_gives_advice() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = write(directory.path(), "url", &role.url);
    let worker = world.worker().without_env("DATABASE_URL");
    let worker = worker.env("DATABASE_URL_FILE", file.to_str().expect("a path"));
    let ops = OpsWorker::start(worker).await;
    ops.until_ready().await;

    let name = &role.name;
    let change = format!("alter role {name} password 'another'");
    world.execute(&change).await;
    // Again and again, because a session that logs in during the change is not in the list yet.
    let terminate =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'");
    let refused = async || {
        world.execute(&terminate).await;
        let response = ops.client.get("/readyz").await;
        let phrase = "FAIL database: unavailable: password authentication failed";
        response.status == 503 && response.body.contains(phrase)
    };
    world.until("the login is refused", PATIENCE, refused).await;
    let body = ops.client.get("/readyz").await.body;
    assert_contains(&body, &["put the right password into DATABASE_URL_FILE"]);
    let is_shown = body.contains("secret@") || body.contains("another");
    assert!(!is_shown, "{body}");

    let url = role.url.replace(":secret@", ":another@");
    std::fs::write(&file, url).expect("written");
    ops.until_ready().await;
}

#[tokio::test]
async fn requests_of_one_second_share_their_queries() {
    const REQUESTS: u32 = 200;
    let world = World::new().await;
    let ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    let statements = async || {
        let name = r#"signaling_database_statement_duration_seconds_count{statement="read"}"#;
        Samples::of(&ops).await.value(name)
    };
    for path in ["/readyz", "/metrics", "/"] {
        let (before, begun) = (statements().await, Instant::now());
        for _ in 0..REQUESTS {
            assert_eq!(ops.client.get(path).await.status, 200, "{path}");
        }
        let made = statements().await - before;
        // The statements of a page are up to five. The worker's own tasks read, too.
        let allowed = 10.0 * (begun.elapsed().as_secs_f64() + 1.0);
        assert!(
            allowed < f64::from(REQUESTS),
            "the machine is too slow to tell"
        );
        assert!(
            made <= allowed,
            "{path}: {made} statements, {allowed} allowed"
        );
    }
}
