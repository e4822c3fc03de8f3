//! Alive, and ready or not and why.

use serde_json::{Value, json};

use super::door::Watched;
use super::gate::Gate;
use super::text::Samples;
use crate::schema::roles::Role;
use testkit::{PATIENCE, World, peer, slow_api, write};

#[tokio::test]
async fn a_worker_says_that_it_is_alive_and_ready() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    let alive = watched.door.get("/healthz").await;
    assert_eq!((alive.status, alive.body.as_str()), (200, "alive\n"));

    let ready = watched.door.get("/readyz").await;
    assert_eq!(
        ready.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        ready.body.lines().all(|line| line.starts_with("ok ")),
        "{ready:?}"
    );
    let json = [("accept", "application/json")];
    let ready = watched.door.get_with("/readyz", &json).await;
    let report: Value = serde_json::from_str(&ready.body).expect("JSON");
    assert_eq!(report["ready"], true);
    assert_eq!(report["checks"].as_array().map(Vec::len), Some(5));
    assert_eq!(report["notes"], json!([]));
}

/// What only the database knows.
const STALE: [&str; 3] = [
    "signaling_lane_state",
    "signaling_limit",
    "signaling_backlog",
];

#[tokio::test]
async fn a_worker_whose_database_is_away_is_alive_and_not_ready_until_it_is_there() {
    let world = World::new().await;
    let mut gate = Gate::before(&world).await;
    let worker = world.worker().env("DATABASE_URL", gate.url());
    let mut watched = Watched::start(worker).await;

    // It waits for it from the start.
    watched
        .until_readiness(503, "FAIL database: waiting for it")
        .await;
    assert_eq!(watched.door.get("/healthz").await.status, 200);
    let metrics = watched.door.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let samples = Samples::read(&metrics.body);
    assert_eq!(samples.get("signaling_database_up"), Some(0.0));

    gate.open().await;
    watched.until_ready().await;
    world
        .execute("select signaling.refresh_queue_counts()")
        .await;
    world
        .until("the fleet shows", PATIENCE, async || {
            let samples = Samples::read(&watched.door.get("/metrics").await.body);
            samples.get("signaling_database_up") == Some(1.0)
                && STALE.iter().all(|name| !samples.names(name).is_empty())
        })
        .await;

    gate.close().await;
    watched
        .until_readiness(503, "FAIL database: it can't be reached")
        .await;
    assert_eq!(watched.door.get("/healthz").await.status, 200);
    let samples = Samples::read(&watched.door.get("/metrics").await.body);
    assert_eq!(samples.get("signaling_database_up"), Some(0.0));
    // What the database said before is not said again.
    for stale in STALE {
        assert!(samples.names(stale).is_empty(), "{stale}");
    }
    assert!(samples.get("process_start_time_seconds").is_some());

    gate.open().await;
    watched.until_ready().await;
    let id = world.insert(peer(json!({}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    watched.worker.stop().await;
}

#[tokio::test]
async fn a_schema_that_is_missing_or_too_old_is_told_until_it_is_there() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    world
        .execute("alter table signaling.schema_migrations rename to elsewhere")
        .await;
    watched
        .until_readiness(503, "FAIL schema: signaling.schema_migrations is empty")
        .await;
    world
        .execute("alter table signaling.elsewhere rename to schema_migrations")
        .await;
    watched.until_ready().await;
    world
        .execute("update signaling.schema_migrations set success = version < 2")
        .await;
    watched
        .until_readiness(503, "FAIL schema: the database's schema is at version 1")
        .await;
    world
        .execute("update signaling.schema_migrations set success = true")
        .await;
    watched.until_ready().await;
}

#[tokio::test]
async fn a_worker_that_shuts_down_is_not_ready_and_answers_until_it_has_recorded_everything() {
    let world = World::with(slow_api(3_000)).await;
    let id = world.insert(peer(json!({}))).await;
    let mut watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    world
        .until("it is called", PATIENCE, async || world.seen().calls == 1)
        .await;
    watched.worker.signal("TERM").await;
    watched
        .until_readiness(503, "FAIL process: it is shutting down")
        .await;
    assert_eq!(watched.door.get("/healthz").await.status, 200);
    let samples = Samples::read(&watched.door.get("/metrics").await.body);
    assert!(
        samples
            .get("signaling_in_flight_messages{app=\"default\"}")
            .is_some()
    );
    assert_eq!(watched.worker.wait_exit().await, Some(0));
    assert_eq!(world.row(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_lane_that_does_not_get_on_is_told_with_what_is_in_its_way() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    let mut client = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.lane where app = 'default' for update")
        .execute(&mut *client)
        .await
        .expect("locked");
    let id = world.insert(peer(json!({}))).await;
    watched
        .until_readiness(503, "FAIL lanes: the app default has not got on for")
        .await;
    let body = watched.door.get("/readyz").await.body;
    assert!(body.contains("lock timeout"), "{body}");
    assert!(body.contains("ok   database"), "{body}");
    client.rollback().await.expect("unlocked");
    watched.until_ready().await;
    world.until_final(id).await;
}

#[tokio::test]
async fn an_app_that_is_held_or_paused_is_noted_and_the_worker_is_ready() {
    let world = World::new().await;
    world.set_faults(&["401"]);
    world.insert(peer(json!({}))).await;
    let watched = Watched::start(world.worker()).await;
    watched
        .until_readiness(200, "note the app default is unauthorized")
        .await;
    let paused = world
        .command(&["pause", "default", "--reason", "a-private-matter"])
        .finish()
        .await;
    assert_eq!(paused.code, Some(0), "{paused:?}");
    watched
        .until_readiness(200, "note the app default is paused by a person")
        .await;
    let body = watched.door.get("/readyz").await.body;
    assert!(!body.contains("a-private-matter"), "{body}");
}

#[tokio::test]
async fn a_worker_that_has_stepped_aside_is_noted_and_every_worker_is_ready() {
    let world = World::new().await;
    let watched = Watched::start(world.worker()).await;
    watched.until_ready().await;
    world.pretend_worker("the-other", "1", "default").await;
    world
        .pretend_aside("the-other", "default", "2030-01-31T12:00:00Z", "HTTP 401")
        .await;
    let note = "note the worker the-other has stepped aside from the app default since 2030-01-31T12:00:00Z: HTTP 401";
    watched.until_readiness(200, note).await;
    world
        .execute("delete from signaling.worker_app where stepped_aside_at is not null")
        .await;
    world
        .until("the note goes", PATIENCE, async || {
            !watched.door.get("/readyz").await.body.contains("note")
        })
        .await;
}

#[tokio::test]
async fn an_app_of_another_environment_is_noted_and_the_worker_is_ready() {
    let world = World::new().await;
    world
        .execute("select signaling.open_lane('default', 500, 'production')")
        .await;
    let watched = Watched::start(world.worker().env("WORKER_ENVIRONMENT", "staging")).await;
    watched
        .until_readiness(200, "note the app default is of another environment")
        .await;
    let metrics = watched.door.get("/metrics").await.body;
    let gauge = "signaling_lane_state{app=\"default\",state=\"other_environment\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
}

#[tokio::test]
async fn a_worker_whose_password_was_rotated_is_not_ready_and_says_what_to_do() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = write(directory.path(), "url", &role.url);
    let worker = world.worker().without_env("DATABASE_URL");
    let worker = worker.env("DATABASE_URL_FILE", file.to_str().expect("a path"));
    let watched = Watched::start(worker).await;
    watched.until_ready().await;

    let name = &role.name;
    // In two transactions: a worker that connects again before the first one is committed still gets in.
    for statement in [
        format!("alter role {name} password 'another'"),
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"),
    ] {
        world.execute(&statement).await;
    }
    watched
        .until_readiness(
            503,
            "FAIL database: it can't be reached: password authentication failed",
        )
        .await;
    let told = watched.door.get("/readyz").await.body;
    let advice = format!("put the right one into {}", file.display());
    assert!(told.contains(&advice), "{told}");
    assert!(
        !told.contains("secret@") && !told.contains("another"),
        "{told}"
    );

    let url = role.url.replace(":secret@", ":another@");
    std::fs::write(&file, url).expect("written");
    watched.until_ready().await;
}
