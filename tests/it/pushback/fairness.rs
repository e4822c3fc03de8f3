//! What share fresh messages and those that are called again get when the budget is short.

use super::{insert_due, kinds};
use testkit::{PATIENCE, World};

/// Makes all messages with this kind of payload such that have been called before.
async fn call_again(world: &World, kind: &str) {
    world
        .execute(&format!(
            "update signaling.outbox set sent_at = now() - interval '1 minute', attempts = 1
             where payload like '{kind} %'"
        ))
        .await;
}

#[tokio::test]
async fn a_backlog_of_fresh_messages_does_not_starve_those_that_are_called_again() {
    let world = World::new().await;
    insert_due(&world, "fresh", 400, 20).await;
    insert_due(&world, "again", 100, 10).await;
    call_again(&world, "again").await;
    let _worker = world.worker().env("WORKER_RATE", "50").start();
    world
        .simulator
        .ledger()
        .wait_for_calls(150, PATIENCE)
        .await
        .expect("calls");
    let kinds = kinds(&world.simulator.ledger().calls()[..150]);
    let again = kinds.get("again").copied().unwrap_or_default();
    assert!((15..=52).contains(&again), "{kinds:?} of the first 150");
}

#[tokio::test]
async fn a_backlog_of_messages_that_are_called_again_does_not_starve_fresh_ones() {
    let world = World::new().await;
    insert_due(&world, "again", 400, 20).await;
    call_again(&world, "again").await;
    let _worker = world.worker().env("WORKER_RATE", "50").start();
    let ledger = world.simulator.ledger();
    ledger.wait_for_calls(25, PATIENCE).await.expect("calls");
    insert_due(&world, "fresh", 100, 0).await;
    ledger.wait_for_calls(160, PATIENCE).await.expect("calls");

    let calls = ledger.calls();
    let is_fresh = |payload: Option<&str>| payload.is_some_and(|text| text.starts_with("fresh"));
    let first = calls
        .iter()
        .position(|call| is_fresh(call.payload.as_deref()))
        .expect("a fresh one");
    assert!(first < 50, "the first fresh one came after {first} others");
    let kinds = kinds(&calls[first..first + 100]);
    let fresh = kinds.get("fresh").copied().unwrap_or_default();
    assert!(fresh >= 60, "{kinds:?} of the 100 while both waited");
    assert!(fresh <= 95, "{kinds:?} of the 100 while both waited");
}

#[tokio::test]
async fn what_one_kind_does_not_need_the_other_one_has() {
    let world = World::new().await;
    insert_due(&world, "again", 100, 20).await;
    call_again(&world, "again").await;
    let _worker = world.worker().start();
    world.until_all_final().await;
    let seconds: f64 = world
        .ask("select extract(epoch from max(sent_at) - min(sent_at))::float8 from signaling.outbox")
        .await;
    assert!(
        seconds < 1.0,
        "a fifth of the rate would have been enough for {seconds} s"
    );
}
