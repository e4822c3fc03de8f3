//! The programs in `examples/`, run as their headers say.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use simulator::Call;
use tokio::process::Command;

use super::installed::{cargo_example, node_package, python_environment};
use testkit::World;

/// An example waits for 30 s by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// The only call of a message.
fn the_call(calls: &[Call]) -> &Call {
    let [call] = calls else {
        panic!("one call: {calls:?}");
    };
    call
}

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
    for line in [
        "order 1 is stored",
        "a repeat is no second message",
        "refused: destination_has_a_forbidden_character",
        "message 1: message_delivered",
        ": message_sent",
    ] {
        assert!(said.contains(line), "{line:?} is missing: {output:?}");
    }

    let to_customer = world.calls_of("Order 1 is confirmed");
    assert_eq!(the_call(&to_customer).target, "user-17");
    let to_warehouse = world.calls_of("Pack order 1");
    assert_eq!(the_call(&to_warehouse).target, "warehouse");
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
