//! The orderly end of a worker.

use serde_json::json;

use harness::{World, peer, slow_api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_records_its_outcomes_and_releases_unsent_messages() {
    let world = World::with(slow_api(100)).await;
    world.insert_many(300).await;
    let mut worker = world.worker().start();
    world.until_accepted(50).await;
    worker.stop().await;

    let called = i64::try_from(world.seen().accepted).expect("few");
    assert!(called < 300, "the signal came too late for this test");
    assert_eq!(world.count("status = 'message_sent'").await, called);
    let released = "status = 'pending' and claim_id is null and due_at <= now()";
    assert_eq!(world.count(released).await, 300 - called);

    let _next = world.worker().start();
    world.until_all_final().await;
    world.assert_no_repeats(300);
    world.assert_sent_once(300).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once_although_a_call_is_in_flight() {
    let world = World::new().await;
    world.set_faults(&["hang"]);
    let id = world.insert(peer(json!({}))).await;
    let mut worker = world.worker().start();
    world.until_accepted(1).await;
    worker.signal("TERM").await;
    worker.until_logged("shutdown_started").await;
    assert!(worker.is_running(), "a call is in flight");
    let begun = std::time::Instant::now();
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(1));
    assert!(begun.elapsed().as_secs() < 10, "it waited for the call");
    let line = worker.log_line("shutdown_started");
    assert!(line.contains("ends it at once"), "{line}");
    // The message is due again when the lease ends.
    assert_eq!(world.row(id).await.status, "pending");
}

#[tokio::test]
async fn a_shutdown_that_can_not_drain_in_time_says_how_many_messages_are_left() {
    let world = World::new().await;
    world.set_faults(&["hang"]);
    world.insert_many(3).await;
    let mut worker = world.worker().env("WORKER_DRAIN_TIMEOUT", "300ms").start();
    world.until_accepted(3).await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(1));
    let said = worker.stderr.text();
    assert!(said.contains("3 messages were unfinished"), "{said}");
}

/// A claim without a response has no message of this worker.
#[tokio::test]
async fn an_idle_worker_whose_database_hangs_ends_with_success_after_the_drain_timeout() {
    let world = World::new().await;
    let mut worker = world
        .worker()
        .env("WORKER_POLL_INTERVAL", "60s")
        .env("WORKER_DRAIN_TIMEOUT", "300ms")
        .start();
    let (lock, id) = world.block_claim(json!({})).await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(0));
    let said = worker.stderr.text();
    assert!(!said.contains("unfinished"), "{said}");
    assert_eq!(worker.logged("worker_stopped"), 1, "{said}");
    lock.commit().await.expect("unlocked");

    let _next = world.worker().start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.seen().calls, 1);
}

#[tokio::test]
async fn a_claim_that_a_shutdown_interrupts_leaves_no_row_behind() {
    let world = World::new().await;
    let mut worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    let (lock, id) = world.block_claim(json!({"at_most_once": true})).await;
    worker.signal("TERM").await;
    worker.until_logged("shutdown_started").await;
    lock.commit().await.expect("unlocked");

    assert_eq!(worker.wait_exit().await, Some(0));
    // The server may execute the claim for a moment after the end of the worker.
    world
        .until_true(
            "select not exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker')",
        )
        .await;
    let row = world.row(id).await;
    assert_eq!((row.claim_id, &*row.status), (None, "pending"), "{row:?}");
}
