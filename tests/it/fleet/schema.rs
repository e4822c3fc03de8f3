//! Workers that run while the schema is damaged or replaced.

use harness::{World, assert_contains};

#[tokio::test]
async fn a_worker_whose_schema_stays_broken_ends_with_advice() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    world.until_idle().await;
    world.execute("drop function signaling.release_hold").await;
    assert_eq!(worker.wait_exit().await, Some(1));
    assert_eq!(worker.logged("schema_unusable"), 1);
    let advice = "lacks function signaling.release_hold: run `worker migrate`";
    assert_contains(&worker.stderr.text(), &[advice]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sends_while_migrations_replace_every_function() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    for _ in 0..5 {
        world.execute(harness::ALTER_EVERY_FUNCTION).await;
        world.run(&["migrate"]).await;
        world.assert_sends().await;
    }
    assert!(worker.is_running());
    assert_eq!(worker.logged("schema_unusable"), 0);
}

/// The test suite of an application may truncate all tables, with the list of migrations. A worker sends without that list.
#[tokio::test]
async fn an_emptied_list_of_migrations_makes_the_schema_no_less_usable() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    world
        .execute(
            "truncate signaling.schema_migrations; drop trigger notify_workers on signaling.outbox",
        )
        .await;
    // The log line names the missing trigger alone.
    worker.until_logged("schema_differs").await;
    let line = worker.log_line("schema_differs");
    assert_contains(&line, &["trigger notify_workers on signaling.outbox"]);
    assert!(!line.contains("schema_migrations"), "{line}");
    world.assert_sends().await;
    assert!(worker.is_running());
}
