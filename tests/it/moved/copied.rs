//! A database that was copied to another environment: its pending messages are not sent again.

use serde_json::{Value, json};

use harness::{PATIENCE, Running, Worker, World, app_table, assert_contains, peer};

/// A world whose default app belongs to production, with so many pending messages. No worker runs.
async fn copy_of_production(pending: i32) -> World {
    let world = World::new().await;
    let mut production = of(&world, "production").start();
    world.assert_sends().await;
    production.stop().await;
    world.insert_many(pending).await;
    world
}

fn of(world: &World, environment: &str) -> Worker {
    world.worker().env("WORKER_ENVIRONMENT", environment)
}

/// Waits until a worker refuses the default app; the line that says so.
async fn refusal(worker: &Running) -> String {
    worker.until_logged("lane_refused").await;
    worker.log_line("lane_refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_another_environment_sends_nothing_of_a_copy_until_it_is_adopted() {
    let world = copy_of_production(30).await;
    let staging = of(&world, "staging").start();
    let line = refusal(&staging).await;
    let phrases = [
        "environment=\"production\"",
        "pending=30",
        "worker adopt default --cancel-pending",
    ];
    assert_contains(&line, &phrases);
    let sentence = "the app belongs to the environment production, and the workers that are alive \
                    belong to another one";
    let is_registered = async || world.run(&["status"]).await.contains(sentence);
    world
        .until("the worker is registered", PATIENCE, is_registered)
        .await;
    let shown: Value = serde_json::from_str(&world.run(&["status", "--json"]).await).expect("JSON");
    assert_eq!(shown[0]["lane"]["environment"], "production");
    assert_eq!(shown[0]["lane"]["workers"]["refusing"], json!(["staging"]));
    let workers = world.run(&["workers"]).await;
    assert_contains(&workers, &["belongs to the environment staging"]);

    let adopt = ["adopt", "--environment", "staging", "--cancel-pending"];
    assert_eq!(
        world.run(&adopt).await,
        "default belongs to the environment staging now, and belonged to the environment production before: 30 messages cancelled\n"
    );
    staging.until_logged("lane_released").await;
    world.deliver(json!({"payload": "new"})).await;
    assert_eq!(world.calls_of("new").len(), 1);
    assert_eq!(world.count("status = 'cancelled'").await, 30);
    assert_eq!(world.seen().calls, 2, "in production, and the new message");
    assert_eq!(staging.logged("lane_refused"), 1);
    assert_eq!(
        world.run(&adopt).await,
        "default belongs to the environment staging already: nothing changed\n"
    );
}

#[tokio::test]
async fn a_worker_without_an_environment_refuses_a_copy() {
    let world = copy_of_production(3).await;
    let worker = world.worker().start();
    let line = refusal(&worker).await;
    assert!(line.contains("the environment production"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_refused_does_not_stop_another() {
    let world = copy_of_production(3).await;
    let config = app_table("default", "") + &app_table("other", "");
    let worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &config)
        .env("WORKER_ENVIRONMENT", "staging")
        .start();
    refusal(&worker).await;
    let id = world.insert(peer(json!({"app": "other"}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.count("status = 'pending'").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_restored_beneath_a_running_worker_is_refused() {
    let world = World::new().await;
    let staging = of(&world, "staging").start();
    world.until_idle().await;
    // A restore of the lane does the same.
    world.set_lane("environment = 'production'").await;
    let id = world.insert(peer(json!({}))).await;
    refusal(&staging).await;
    assert_eq!(world.row(id).await.status, "pending");
    let adopt = ["adopt", "default", "--environment", "staging"];
    let adopted = world.run(&[&adopt[..], &["--send-pending"]].concat()).await;
    assert_contains(&adopted, &[": 1 message pending, to be sent\n"]);
    assert_eq!(world.until_final(id).await.status, "message_sent");
    staging.until_logged("lane_released").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_without_an_environment_belongs_to_the_first_worker_that_has_one() {
    let world = World::new().await;
    let before = world.worker().start();
    before.until_logged("worker_started").await;
    let worker = of(&world, "production").start();
    worker.until_logged("lane_environment_set").await;
    let line = refusal(&before).await;
    assert_contains(&line, &["the environment production"]);
    world.assert_sends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_refuses_an_app_deletes_no_message() {
    let world = copy_of_production(0).await;
    world
        .set_messages(
            "finished_at = now() - interval '1 hour', created_at = now() - interval '2 hours'",
        )
        .await;
    let staging = of(&world, "staging").env("WORKER_RETENTION", "1m").start();
    refusal(&staging).await;
    // The second report comes ten seconds after the first; deleting begins at once.
    world
        .until_true(
            "select coalesce(max(seen_at - started_at) > '5 seconds', false) from signaling.worker",
        )
        .await;
    assert_eq!(world.count("true").await, 1);
    world
        .run(&["adopt", "--environment", "staging", "--send-pending"])
        .await;
    world.until_count(0, "true").await;
}

#[tokio::test]
async fn an_app_is_adopted_into_a_named_environment_once_the_other_workers_are_gone() {
    let world = copy_of_production(2).await;
    let adopt = world.command(&["adopt", "--send-pending"]);
    adopt.fails(2, &["WORKER_ENVIRONMENT"]).await;
    let adopt = |environment: &str| {
        world.command(&["adopt", "--send-pending", "--environment", environment])
    };
    adopt("a b").fails(2, &["letters"]).await;
    world.pretend_worker("w1", "1", "default").await;
    world
        .execute("update signaling.worker set environment = 'production', seen_at = now()")
        .await;
    let refused = adopt("staging");
    refused.fails(1, &["try again in 30 seconds"]).await;
    assert_eq!(world.count("status = 'pending'").await, 2);
}

#[tokio::test]
async fn check_fails_for_an_app_of_another_environment_and_recommends_to_set_one() {
    let world = copy_of_production(0).await;
    for (environment, code, phrases) in [
        (
            "staging",
            1,
            &[
                "FAIL  lane         default: it belongs to the environment production, and this worker to the environment staging",
                "-> if this database is a copy, run `worker adopt default",
            ][..],
        ),
        ("production", 0, &["ok    environment  production"]),
        ("", 1, &["-> set WORKER_ENVIRONMENT"]),
    ] {
        let check = of(&world, environment).as_command(&["check"]);
        let finished = check.finish().await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert_contains(&finished.stdout, phrases);
    }
}
