//! A database that was copied to another environment: its pending messages are not sent again.

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use testkit::{API_KEY, API_SECRET, Finished, PATIENCE, Running, Worker, World, peer};

/// A world whose default app belongs to production, with so many pending messages. No worker runs.
async fn copy_of_production(pending: i32) -> World {
    let world = World::new().await;
    let mut production = of(&world, "production").start();
    let id = world
        .insert(peer(json!({"payload": "sent in production"})))
        .await;
    world.until_final(id).await;
    production.stop().await;
    world.insert_many(pending).await;
    world
}

fn of(world: &World, environment: &str) -> Worker {
    world.worker().env("WORKER_ENVIRONMENT", environment)
}

async fn done(world: &World, arguments: &[&str]) -> String {
    let finished = world.command(arguments).finish().await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
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
    for part in [
        "environment=\"production\"",
        "pending=30",
        "worker adopt default --cancel-pending",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    world
        .until("the worker is registered", PATIENCE, async || {
            done(&world, &["status"]).await.contains("the app belongs to the environment production, and the workers that are alive belong to another one")
        })
        .await;
    let shown: Value =
        serde_json::from_str(&done(&world, &["status", "--json"]).await).expect("JSON");
    assert_eq!(shown[0]["lane"]["environment"], "production");
    assert_eq!(shown[0]["lane"]["workers"]["refusing"], json!(["staging"]));
    assert!(
        done(&world, &["workers"])
            .await
            .contains("belongs to the environment staging")
    );

    let adopt = ["adopt", "--environment", "staging", "--cancel-pending"];
    assert_eq!(
        done(&world, &adopt).await,
        "default belongs to the environment staging now, and did to the environment production: 30 messages cancelled\n"
    );
    staging.until_logged("lane_released").await;
    let id = world.insert(peer(json!({"payload": "new"}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.count("status = 'cancelled'").await, 30);
    assert_eq!(
        world.seen().accepted,
        2,
        "one in production, and the new one"
    );
    assert_eq!(staging.logged("lane_refused"), 1);
    assert_eq!(
        done(&world, &adopt).await,
        "default belongs to the environment staging already: nothing changed\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_messages_shall_be_sent_is_sent_once_it_is_adopted() {
    let world = copy_of_production(20).await;
    let replacement = of(&world, "replacement").start();
    refusal(&replacement).await;
    let adopt = [
        "adopt",
        "default",
        "--environment",
        "replacement",
        "--send-pending",
    ];
    assert!(
        done(&world, &adopt)
            .await
            .contains(": 20 messages pending, to be sent\n")
    );
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 21);
    assert_eq!(world.seen().duplicates, 0);
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
    let config = NamedTempFile::new().expect("a file");
    let app = |alias: &str| {
        format!(
            "[apps.{alias}]\napp_id = \"{alias}\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\n"
        )
    };
    std::fs::write(config.path(), app("default") + &app("other")).expect("written");
    let worker = world
        .worker_without_app()
        .env("WORKER_CONFIG", config.path().to_str().expect("a path"))
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
    world
        .execute("update signaling.lane set environment = 'production'")
        .await;
    let id = world
        .insert(peer(json!({"payload": "of production"})))
        .await;
    refusal(&staging).await;
    assert_eq!(world.row(id).await.status, "pending");
    done(
        &world,
        &["adopt", "--environment", "staging", "--send-pending"],
    )
    .await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    staging.until_logged("lane_released").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_without_an_environment_belongs_to_the_first_worker_that_has_one() {
    let world = World::new().await;
    let mut before = world.worker().start();
    before.until_logged("worker_started").await;
    let worker = of(&world, "production").start();
    worker.until_logged("lane_environment_set").await;
    let line = refusal(&before).await;
    assert!(line.contains("the environment production"), "{line}");
    before.stop().await;
    let id = world.insert(peer(json!({}))).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_refuses_an_app_deletes_no_message() {
    let world = copy_of_production(0).await;
    world
        .execute("update signaling.outbox set finished_at = now() - interval '1 hour', created_at = now() - interval '2 hours'")
        .await;
    let staging = of(&world, "staging").env("WORKER_RETENTION", "1m").start();
    refusal(&staging).await;
    // The second report comes ten seconds after the first; deleting begins at once.
    world
        .until("the worker has run for a while", PATIENCE, async || {
            world
                .ask("select coalesce(max(seen_at - started_at) > '5 seconds', false) from signaling.worker")
                .await
        })
        .await;
    assert_eq!(world.count("true").await, 1);
    done(
        &world,
        &["adopt", "--environment", "staging", "--send-pending"],
    )
    .await;
    world
        .until("the old message is deleted", PATIENCE, async || {
            world.count("true").await == 0
        })
        .await;
}

#[tokio::test]
async fn an_app_is_adopted_by_name_and_only_with_a_decision_and_an_environment() {
    let world = copy_of_production(2).await;
    let ends_with = async |arguments: &[&str], code: i32, text: &str| {
        let finished: Finished = world.command(arguments).finish().await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(
            finished.stderr.contains(text),
            "{arguments:?}: {finished:?}"
        );
    };
    ends_with(
        &["adopt", "--environment", "staging"],
        2,
        "--cancel-pending",
    )
    .await;
    ends_with(&["adopt", "--send-pending"], 2, "WORKER_ENVIRONMENT").await;
    ends_with(
        &["adopt", "--send-pending", "--environment", "a b"],
        2,
        "letters",
    )
    .await;
    ends_with(
        &[
            "adopt",
            "nothing",
            "--send-pending",
            "--environment",
            "staging",
        ],
        1,
        "there is no app 'nothing'",
    )
    .await;
    world.pretend_worker("w1", "1", "default").await;
    world
        .execute("update signaling.worker set environment = 'production', seen_at = now()")
        .await;
    let adopt = ["adopt", "--send-pending", "--environment", "staging"];
    ends_with(&adopt, 1, "try again in 30 seconds").await;
    assert_eq!(world.count("status = 'pending'").await, 2);
}

#[tokio::test]
async fn check_fails_for_an_app_of_another_environment_and_recommends_to_set_one() {
    let world = copy_of_production(5).await;
    world
        .until("the messages are counted", PATIENCE, async || {
            let shown = done(&world, &["status", "--json"]).await;
            let shown: Value = serde_json::from_str(&shown).expect("JSON");
            shown[0]["pending"]["queued"] == 5
        })
        .await;
    let check = async |environment: &str| {
        let mut check = world.worker().env("WORKER_ENVIRONMENT", environment);
        check = check.as_command(&["check"]);
        check.finish().await
    };
    let finished = check("staging").await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let refused = "FAIL  lane         default: it belongs to the environment production, and this worker to the environment staging: the worker refuses its messages, of which 5 were pending at the last count";
    assert!(finished.stdout.contains(refused), "{finished:?}");
    assert!(
        finished
            .stdout
            .contains("-> if this database is a copy, run `worker adopt default")
    );
    let finished = check("production").await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stdout.contains("ok    environment  production"),
        "{finished:?}"
    );
    let finished = check("").await;
    assert!(
        finished.stdout.contains("-> set WORKER_ENVIRONMENT"),
        "{finished:?}"
    );
}
