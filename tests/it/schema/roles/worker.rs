//! A worker, and the operators who share its rights.

use serde_json::json;

use super::{Role, can, can_not, can_not_harm_the_schema, columns, open_lane, waiting_message};
use testkit::{PATIENCE, World, peer};

/// Runs a command as a role, and returns what it prints.
async fn done(world: &World, role: &Role, arguments: &[&str]) -> String {
    let finished = world
        .command(arguments)
        .env("DATABASE_URL", &role.url)
        .finish()
        .await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

async fn lane<T>(world: &World, expression: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let query = format!("select {expression} from signaling.lane where app = 'default'");
    world.ask(&query).await
}

async fn until_lane(world: &World, condition: &str) {
    let holds = async || lane::<bool>(world, condition).await;
    world.until(condition, PATIENCE, holds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_the_rights_of_a_worker_delivers_slows_down_holds_its_lane_and_lets_it_go() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    // Old, so that the janitor has something to do.
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'old');
             update signaling.outbox set status = 'failed', finished_at = now() - interval '2 hours',
                    created_at = now() - interval '3 hours'",
        )
        .await;
    let mut worker = world
        .worker()
        .env("DATABASE_URL", &role.url)
        .env("WORKER_LOG", "info,signaling_worker=debug")
        .env("WORKER_RETENTION", "1h")
        .start();
    worker.until_logged("worker_started").await;

    world.insert_many(20).await;
    world.until_all_final().await;
    world
        .until("what is old is deleted", PATIENCE, async || {
            world.count("payload = 'old'").await == 0
        })
        .await;
    // Asleep, so that the next insert rings.
    world.until_idle().await;
    world.set_faults(&["429:count=1"]);
    let throttled = world.insert(peer(json!({}))).await;
    assert_eq!(world.until_final(throttled).await.status, "message_sent");
    until_lane(&world, "throttled_at is not null").await;

    // While the lane is held, a message expires; at the end nothing is left.
    world.set_faults(&["500"]);
    world.insert_many(30).await;
    until_lane(&world, "hold is not distinct from 'broken'").await;
    let expires_at = world.time_in(50).await;
    let expired = world
        .insert(peer(
            json!({"expires_at": expires_at, "due_at": world.time_in(3_600_000).await}),
        ))
        .await;
    assert_eq!(world.until_final(expired).await.status, "expired");
    world.set_faults(&[]);
    until_lane(&world, "hold is null").await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 51);

    worker.stop().await;
    let log = worker.stderr.whole_text();
    assert!(!log.contains("permission denied"), "{log}");
}

#[tokio::test]
async fn an_operator_with_the_rights_of_a_worker_can_run_every_command_that_steps_in() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    open_lane(&world).await;
    let waiting = waiting_message(&world).await.to_string();
    let run = async |arguments: &[&str]| done(&world, &role, arguments).await;

    assert_eq!(run(&["pause", "default"]).await, "default is paused\n");
    assert!(run(&["status"]).await.contains("paused by"));
    assert_eq!(run(&["resume", "default"]).await, "default sends again\n");
    run(&["limit", "default", "50"]).await;
    assert!((lane::<f64>(&world, "limit_per_s").await - 50.0).abs() < 1e-9);
    run(&["limit", "default", "configured"]).await;
    assert!((lane::<f64>(&world, "limit_per_s").await - 100.0).abs() < 1e-9);
    assert!(run(&["cancel", &waiting]).await.contains("cancelled"));
    run(&["retry", "--status", "cancelled", "--dry-run"]).await;
    assert_eq!(world.count("status = 'cancelled'").await, 1);
    run(&["retry", "--status", "cancelled"]).await;
    assert_eq!(world.count("status = 'pending'").await, 1);
    assert!(run(&["status", "--json"]).await.contains("queued"));
}

#[tokio::test]
async fn a_worker_can_not_insert_or_change_what_a_producer_said_nor_harm_the_schema() {
    let world = World::new().await;
    open_lane(&world).await;
    let role = Role::granted(&world, "worker").await;
    let mut worker = role.connect().await;
    waiting_message(&world).await;
    // Beside what became of a message, `retry` sets when it is due and drops an expiry that is over.
    let own = [
        "status",
        "due_at",
        "expires_at",
        "attempts",
        "claim_id",
        "claimed_by",
        "sent_at",
        "finished_at",
        "http_status",
        "request_id",
        "error",
    ];
    for column in columns(&world, "signaling.outbox").await {
        let update = format!("update signaling.outbox set {column} = {column} where false");
        if own.contains(&column.as_str()) {
            can(&mut worker, &update).await;
        } else {
            can_not(
                &mut worker,
                &update.replace(&format!("= {column}"), "= default"),
            )
            .await;
        }
    }
    for column in columns(&world, "signaling.attempt").await {
        can_not(
            &mut worker,
            &format!("update signaling.attempt set {column} = default"),
        )
        .await;
    }
    for statement in [
        "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'x')",
        "insert into signaling.outbox default values",
        "update signaling.lane set app = 'other'",
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s, paused_at) values ('x', 1, 1, 1, now())",
        "insert into signaling.attempt (message_id, attempt, outcome, recorded_at) values (1, 1, 'retry', now())",
    ] {
        can_not(&mut worker, statement).await;
    }
    can_not_harm_the_schema(&world, &mut worker).await;

    let migrated = world
        .command(&["migrate"])
        .env("DATABASE_URL", &role.url)
        .finish()
        .await;
    assert_eq!(migrated.code, Some(1), "{migrated:?}");
}

#[tokio::test]
async fn a_worker_that_may_not_write_figures_sends_its_messages_and_says_so_once() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute(&format!(
            "revoke all on signaling.rollup from {0}; revoke all on function signaling.take_census from {0}",
            role.name
        ))
        .await;
    let mut worker = world.worker().env("DATABASE_URL", &role.url).start();
    for _ in 0..2 {
        let id = world.insert(peer(json!({}))).await;
        world.until_final(id).await;
        worker.until_logged("stats_failed").await;
        worker.until_logged("queue_counts_failed").await;
    }
    worker.stop().await;
    for event in ["stats_failed", "queue_counts_failed"] {
        assert_eq!(worker.logged(event), 1, "{event}");
    }
}
