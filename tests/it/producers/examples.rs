//! The programs in `examples/`, run as their headers say.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::installed::{cargo_example, node_package, python_environment};
use harness::{PATIENCE, World, assert_contains};

/// Runs an example beside a worker. Its messages arrive once, and it prints their statuses.
async fn assert_delivers(mut example: Command) {
    let world = World::new().await;
    let mut worker = world.worker().start();
    let example = example
        .env("DATABASE_URL", &world.url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, example)
        .await
        .expect("it ends")
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_contains(
        &said,
        &[
            "order 1 is stored",
            "the repeated insert added no message",
            "refused: destination_has_a_forbidden_character",
            "message 1: message_delivered",
            ": message_sent",
        ],
    );

    for (payload, target) in [
        ("Order 1 is confirmed", "user-17"),
        ("Pack order 1", "warehouse"),
    ] {
        let calls = world.calls_of(payload);
        let targets: Vec<_> = calls.iter().map(|call| &*call.target).collect();
        assert_eq!(targets, [target], "{payload}");
    }
    assert_eq!(world.seen().accepted, 2);
    let orders: i64 = world.ask("select count(*) from app_order").await;
    assert_eq!(orders, 1, "an order whose message is refused is not stored");
    worker.stop().await;
}

fn example(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(path)
}

#[tokio::test]
async fn the_producer_in_rust_has_its_messages_delivered() {
    assert_delivers(Command::new(cargo_example("producer"))).await;
}

async fn assert_python_delivers(program: &str) {
    let Some(python) = python_environment(&example("python")).await else {
        return;
    };
    let mut command = Command::new(python);
    command.arg(example(program));
    assert_delivers(command).await;
}

#[tokio::test]
async fn the_producer_in_python_has_its_messages_delivered() {
    assert_python_delivers("python/producer.py").await;
}

#[tokio::test]
async fn the_producer_with_sqlalchemy_has_its_messages_delivered() {
    assert_python_delivers("python/producer_sqlalchemy.py").await;
}

#[tokio::test]
async fn the_producer_with_django_has_its_messages_delivered() {
    assert_python_delivers("python/producer_django.py").await;
}

async fn assert_node_delivers(package: &str, program: &str) {
    let Some(package) = node_package(&example(package), package).await else {
        return;
    };
    let mut command = Command::new("node");
    command.arg(package.join(program));
    assert_delivers(command).await;
}

#[tokio::test]
async fn the_producer_for_node_has_its_messages_delivered() {
    assert_node_delivers("node", "producer.mjs").await;
}

#[tokio::test]
async fn the_producer_in_typescript_has_its_messages_delivered() {
    assert_node_delivers("typescript", "producer.js").await;
}
