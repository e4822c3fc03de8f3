//! Several apps in one worker.

use std::io::Write;

use serde_json::json;
use tempfile::NamedTempFile;

use testkit::{API_KEY, API_SECRET, World, peer};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn app(alias: &str) -> String {
    format!(
        "[apps.{alias}]\napp_id = \"{alias}-id\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\n"
    )
}

#[tokio::test]
async fn an_app_whose_calls_hang_does_not_delay_another() {
    let world = World::new().await;
    world.set_faults(&["hang:app=stuck-id"]);
    let config = file(&format!(
        "{}max_in_flight = 20\n{}",
        app("stuck"),
        app("quick")
    ));
    // More than fits into flight, and inserted first.
    for _ in 0..40 {
        world.insert(peer(json!({"app": "stuck"}))).await;
    }
    let path = config.path().to_str().expect("a path");
    let worker = world.worker_without_app().arg("--config").arg(path).start();
    // They come one by one, because none of them is answered.
    world.until_accepted(2).await;
    let mut quick = Vec::new();
    for number in 0..100 {
        quick.push(
            world
                .insert(peer(
                    json!({"app": "quick", "payload": format!("quick {number}")}),
                ))
                .await,
        );
    }
    for id in quick {
        let row = world.until_final(id).await;
        assert_eq!(row.status, "message_sent");
        assert!(
            row.lateness() < time::Duration::seconds(3),
            "late by {}",
            row.lateness()
        );
    }
    assert_eq!(
        world.count("app = 'stuck' and status = 'pending'").await,
        40
    );
    let seen = world.seen();
    assert_eq!(seen.apps["quick-id"].calls, 100);
    assert!(seen.apps["stuck-id"].calls <= 20, "{seen:?}");
    drop(worker);
}

#[tokio::test]
async fn an_app_that_is_refused_does_not_hold_another() {
    let world = World::new().await;
    world.set_faults(&["401:app=refused-id"]);
    let config = file(&(app("refused") + &app("fine")));
    let refused = world.insert(peer(json!({"app": "refused"}))).await;
    let path = config.path().to_str().expect("a path");
    let worker = world
        .worker_without_app()
        .env("WORKER_CONFIG", path)
        .start();
    worker.until_logged("lane_held").await;
    let fine = world.insert(peer(json!({"app": "fine"}))).await;
    assert_eq!(world.until_final(fine).await.status, "message_sent");
    assert_eq!(world.row(refused).await.status, "pending");
}

#[tokio::test]
async fn each_app_has_its_own_limit_and_base_url() {
    let world = World::new().await;
    let other = World::new().await;
    let config = file(&format!(
        "{}rate = 20\n{}base_url = \"{}\"\n",
        app("narrow"),
        app("elsewhere"),
        other.simulator.base_url()
    ));
    for _ in 0..30 {
        world.insert(peer(json!({"app": "narrow"}))).await;
    }
    let elsewhere = world.insert(peer(json!({"app": "elsewhere"}))).await;
    let path = config.path().to_str().expect("a path");
    let _worker = world.worker_without_app().arg("--config").arg(path).start();
    world.until_final(elsewhere).await;
    world.until_all_final().await;
    assert_eq!((world.seen().calls, other.seen().calls), (30, 1));
    let worst = world.seen().apps["narrow-id"].worst_sliding_second;
    assert!(worst <= 20, "{worst} calls in a second");
}

#[tokio::test]
async fn messages_of_an_app_that_no_worker_serves_wait() {
    let world = World::new().await;
    let unserved = world.insert(peer(json!({"app": "unserved"}))).await;
    let served = world.insert(peer(json!({}))).await;
    let _worker = world.worker().start();
    world.until_final(served).await;
    assert_eq!(world.row(unserved).await.status, "pending");
    assert_eq!(world.seen().calls, 1);
}
