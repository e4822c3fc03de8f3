//! SIGTERM, SIGINT, and a second one.

use serde_json::json;

use testkit::{PATIENCE, World, peer, slow_api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_records_its_outcomes_and_releases_unsent_messages() {
    for signal in ["TERM", "INT"] {
        let world = World::with(slow_api(100)).await;
        world.insert_many(300).await;
        let mut worker = world.worker().start();
        world.until_accepted(50).await;
        worker.signal(signal).await;
        assert_eq!(
            worker.wait_exit().await,
            Some(0),
            "{}",
            worker.stderr.text()
        );

        let called = i64::try_from(world.seen().accepted).expect("few");
        assert!(called < 300, "it was too quick for this test");
        assert_eq!(world.count("status = 'message_sent'").await, called);
        assert_eq!(
            world
                .count("status = 'pending' and claim_id is null and due_at <= now()")
                .await,
            300 - called
        );

        let next = world.worker().start();
        world.until_all_final().await;
        let seen = world.seen();
        assert_eq!((seen.calls, seen.duplicates), (300, 0));
        assert_eq!(
            world
                .count("status = 'message_sent' and attempts = 1")
                .await,
            300
        );
        drop(next);
    }
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
    assert!(line.contains("second signal"), "{line}");
    assert_eq!(
        world.row(id).await.status,
        "pending",
        "it is due again when the lease ends"
    );
}

#[tokio::test]
async fn a_shutdown_waits_for_a_call_in_flight_and_records_it() {
    let world = World::with(slow_api(1_000)).await;
    let id = world.insert(peer(json!({}))).await;
    let mut worker = world.worker().start();
    world.until_accepted(1).await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(0));
    let row = world.row(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
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

/// A claim that the database does not answer is no message of this worker.
#[tokio::test]
async fn an_idle_worker_whose_database_hangs_ends_with_success_after_the_drain_timeout() {
    let world = World::new().await;
    let mut worker = world
        .worker()
        .env("WORKER_POLL_INTERVAL", "60s")
        .env("WORKER_DRAIN_TIMEOUT", "300ms")
        .start();
    world.until_idle().await;
    let mut lock = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.lane for update")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let id = world.insert(peer(json!({}))).await;
    world
        .until("a claim is under way", PATIENCE, async || {
            world
                .ask(
                    "select exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker' and wait_event_type = 'Lock')",
                )
                .await
        })
        .await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(0));
    let said = worker.stderr.text();
    assert!(!said.contains("unfinished"), "{said}");
    assert_eq!(worker.logged("claims_unanswered"), 1, "{said}");
    assert_eq!(worker.logged("worker_stopped"), 1, "{said}");
    lock.commit().await.expect("unlocked");

    let next = world.worker().start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.seen().calls, 1);
    drop(next);
}

#[tokio::test]
async fn an_idle_worker_stops_at_once() {
    let world = World::new().await;
    let mut worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(0));
}

/// A claim may be on its way to the database when the signal comes. Its rows were not sent.
#[tokio::test]
async fn a_claim_that_a_shutdown_interrupts_leaves_no_row_behind() {
    let world = World::new().await;
    let mut worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;

    // A claim waits for the lane's row.
    let mut lock = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.lane for update")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let id = world.insert(peer(json!({"at_most_once": true}))).await;
    world
        .until("a claim is under way", PATIENCE, async || {
            world
                .ask(
                    "select exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker' and wait_event_type = 'Lock')",
                )
                .await
        })
        .await;
    worker.signal("TERM").await;
    worker.until_logged("shutdown_started").await;
    lock.commit().await.expect("unlocked");

    assert_eq!(worker.wait_exit().await, Some(0));
    // The server may be busy with the claim for a moment longer than the worker lives.
    world
        .until("no claim is under way", PATIENCE, async || {
            world
                .ask(
                    "select not exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker')",
                )
                .await
        })
        .await;
    let row = world.row(id).await;
    assert_eq!(
        (row.claim_id, row.status.as_str()),
        (None, "pending"),
        "{row:?}"
    );
}
