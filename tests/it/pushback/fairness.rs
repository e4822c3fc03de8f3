//! The shares of first attempts and retries when the budget is short.

use super::{insert_due, kinds};
use testkit::World;

/// Turns the messages of a kind into retries.
async fn make_retries(world: &World, kind: &str) {
    world
        .set_messages(&format!(
            "sent_at = now() - interval '1 minute', attempts = 1
             where payload like '{kind} %'"
        ))
        .await;
}

#[tokio::test]
async fn a_backlog_of_first_attempts_does_not_starve_retries() {
    let world = World::new().await;
    insert_due(&world, "fresh", 400, 20).await;
    insert_due(&world, "again", 100, 10).await;
    make_retries(&world, "again").await;
    let _worker = world.worker().env("WORKER_RATE", "50").start();
    world.until_calls(150).await;
    let kinds = kinds(&world.simulator.ledger().calls()[..150]);
    let again = kinds.get("again").copied().unwrap_or_default();
    assert!((15..=52).contains(&again), "{kinds:?} of the first 150");
}

#[tokio::test]
async fn a_backlog_of_retries_does_not_starve_first_attempts() {
    let world = World::new().await;
    insert_due(&world, "again", 400, 20).await;
    make_retries(&world, "again").await;
    let _worker = world.worker().env("WORKER_RATE", "50").start();
    world.until_calls(25).await;
    insert_due(&world, "fresh", 100, 0).await;
    world.until_calls(160).await;

    let calls = world.simulator.ledger().calls();
    let is_fresh = |payload: Option<&str>| payload.is_some_and(|text| text.starts_with("fresh"));
    let first = calls
        .iter()
        .position(|call| is_fresh(call.payload.as_deref()))
        .expect("a fresh one");
    assert!(first < 50, "the first fresh one came after {first} others");
    let kinds = kinds(&calls[first..first + 100]);
    let fresh = kinds.get("fresh").copied().unwrap_or_default();
    assert!(
        (60..=95).contains(&fresh),
        "{kinds:?} of the 100 while both waited"
    );
}

#[tokio::test]
async fn retries_use_the_share_that_first_attempts_leave() {
    let world = World::new().await;
    insert_due(&world, "again", 100, 20).await;
    make_retries(&world, "again").await;
    let _worker = world.worker().start();
    world.until_all_final().await;
    let seconds: f64 = world
        .ask("select extract(epoch from max(sent_at) - min(sent_at))::float8 from signaling.outbox")
        .await;
    assert!(seconds < 1.0, "the retries took {seconds} s");
}
