//! Version skew: workers of the last release beside the functions and the workers of this version.
//!
//! `WORKER_LAST_RELEASE` is the path of the last release's binary. Without it, these tests are skipped.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::INSERT;
use harness::{PATIENCE, Postgres, Worker, World, ask, execute, peer};

/// The last release's binary. None: the test is skipped.
fn last_release() -> Option<PathBuf> {
    let path = std::env::var_os("WORKER_LAST_RELEASE").map(PathBuf::from);
    if let Some(path) = &path {
        assert!(path.is_file(), "WORKER_LAST_RELEASE names no file");
    } else {
        // No call of `skip`: before the first release, there is no binary to require.
        writeln!(
            std::io::stderr(),
            "skipped a test beside the last release: set WORKER_LAST_RELEASE to the path of its binary"
        )
        .expect("written");
    }
    path
}

/// A worker of the last release, and one of this version.
fn old_and_new(world: &World, binary: &Path) -> (Worker, Worker) {
    let named = |name| world.worker().env("WORKER_NAME", name);
    (named("old").binary(binary), named("new"))
}

/// Inserts messages until a worker of this name has sent one.
async fn until_sends(world: &World, name: &str) {
    let sent = format!("status = 'message_sent' and claimed_by = '{name}'");
    let what = format!("a message is sent by the worker \"{name}\"");
    world
        .until(&what, PATIENCE, async || {
            world.insert_many(5).await;
            world.count(&sent).await > 0
        })
        .await;
}

#[tokio::test]
async fn a_worker_of_the_last_release_delivers_with_the_newest_functions() {
    let Some(binary) = last_release() else { return };
    let world = World::new().await;
    world.set_faults(&[
        "500:destination=fails,first_calls=1",
        "400:destination=refused",
    ]);
    let (old, _) = old_and_new(&world, &binary);
    let mut old = old.start();
    old.until_logged("worker_started").await;
    for (destination, status, attempts) in [
        ("arrives", "message_sent", 1),
        ("fails", "message_sent", 2),
        ("refused", "failed", 1),
    ] {
        let (id, row) = world.deliver(json!({"destination": destination})).await;
        let found = (row.status.as_str(), row.attempts);
        assert_eq!(found, (status, attempts), "message {id}: {row:?}");
    }
    old.stop().await;
}

#[tokio::test]
async fn workers_of_the_last_release_and_the_newest_share_an_apps_messages() {
    let Some(binary) = last_release() else { return };
    let world = World::new().await;
    let (old, new) = old_and_new(&world, &binary);
    let (mut old, mut new) = (old.start(), new.start());
    until_sends(&world, "old").await;
    until_sends(&world, "new").await;
    world.run(&["pause", "default", "--reason", "a test"]).await;
    let id = world.insert(peer(json!({}))).await;
    world.run(&["resume", "default"]).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    // As in an upgrade, the old worker ends, and the new worker continues.
    old.stop().await;
    world.assert_sends().await;
    world.until_all_final().await;
    let all = world.count("true").await;
    world.assert_sent_once(all).await;
    let calls = i64::try_from(world.seen().calls);
    assert_eq!(calls, Ok(all), "one call a message");
    new.stop().await;
}

#[tokio::test]
async fn migrate_of_the_last_release_leaves_the_newest_functions_alone() {
    let Some(binary) = last_release() else { return };
    let world = World::new().await;
    let functions = "select string_agg(proname || prosrc, ' ' order by proname) from pg_proc
                     where pronamespace = 'signaling'::regnamespace";
    let before: String = world.ask(functions).await;
    world.command(&["migrate"]).binary(&binary).succeeds().await;
    assert_eq!(world.ask::<String>(functions).await, before);
}

#[tokio::test]
async fn migrate_keeps_the_messages_of_a_database_of_the_last_release() {
    let Some(binary) = last_release() else { return };
    let url = Postgres::shared().await.empty_database().await;
    let migrate = || Worker::on(&url, &["migrate"]);
    migrate().binary(&binary).succeeds().await;
    let mut connection = PgConnection::connect(&url).await.expect("connected");
    execute(&mut connection, INSERT).await;
    migrate().succeeds().await;
    let kept = "select count(*) from signaling.outbox where status = 'pending'";
    assert_eq!(ask::<i64>(&mut connection, kept).await, 1);
    Worker::on(&url, &["status"]).succeeds().await;
}
