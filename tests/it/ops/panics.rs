//! Panics of the worker's tasks. A panic costs the present step of its task, and nothing else.

use serde_json::json;

use super::ops_client::OpsWorker;
use super::prometheus_text::Samples;
use harness::{PATIENCE, Worker, World, assert_contains, peer, slow_api};

/// A worker that panics at these places, as often as given.
fn panicking(world: &World, panics: &str) -> Worker {
    world.worker().env("WORKER_TEST_PANICS", panics)
}

async fn panics(ops: &OpsWorker, task: &str) -> f64 {
    let samples = Samples::of(ops).await;
    samples.value(&format!("signaling_task_panics_total{{task=\"{task}\"}}"))
}

const TASKS: [&str; 7] = [
    "lane",
    "recorder",
    "listener",
    "poller",
    "reporter",
    "stats_flusher",
    "janitor",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_that_panics_is_started_again_and_counted() {
    let world = World::new().await;
    let asked: Vec<_> = TASKS.iter().map(|task| format!("{task}=2")).collect();
    let worker = panicking(&world, &asked.join(","))
        .env("WORKER_RETENTION", "1h")
        .short_leases();
    let mut ops = OpsWorker::start(worker).await;
    ops.worker.until_logged("worker_started").await;
    assert!(panics(&ops, "delivery").await < 1.0);
    world.insert_many(50).await;
    for task in TASKS {
        let panics_twice = async || {
            world.insert_many(1).await;
            panics(&ops, task).await > 1.5
        };
        world.until(task, PATIENCE, panics_twice).await;
    }
    world.until_all_final().await;
    world.assert_sends().await;
    let workers: i64 = world.ask("select count(*) from signaling.worker").await;
    assert_eq!(workers, 1, "the worker counts once");

    ops.worker.stop().await;
    assert_eq!(ops.worker.logged("task_panicked"), 2 * TASKS.len());
    assert_eq!(ops.worker.logged("panicked"), 2 * TASKS.len());
    let line = ops.worker.log_line("panicked");
    let phrases = ["WORKER_TEST_PANICS asks for it", "location=\"src/worker/"];
    assert_contains(&line, &phrases);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_recorder_loses_and_repeats_no_outcome() {
    let world = World::new().await;
    world.insert_many(400).await;
    let mut worker = panicking(&world, "recorder=1").start();
    world.until_all_final().await;
    worker.stop().await;
    assert_eq!(worker.logged("task_panicked"), 1);
    world.assert_sent_once(400).await;
    world.assert_no_repeats(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_makes_the_recorder_panic_is_given_up_alone() {
    let world = World::new().await;
    world.insert_many(200).await;
    // The record panics within its batch, and then alone.
    let mut worker = panicking(&world, "recorder:7=2").short_leases().start();
    world.until_all_final().await;
    worker.stop().await;
    let row = world.row(7).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 2));
    assert_eq!(world.attempts(7).await[0].outcome, "lost");
    world.assert_sent_once(199).await;
    let calls = world.simulator.ledger().calls();
    let others = calls.iter().filter(|call| call.target != "user-7");
    assert_eq!(others.count(), 199);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorder_that_panics_during_a_shutdown_still_records() {
    let world = World::with(slow_api(1_000)).await;
    world.insert_many(20).await;
    // The first worker proves that the API accepts messages, so the second one sends many at once.
    let mut first = world.worker().env("WORKER_RATE", "50").start();
    world.until_accepted(5).await;
    first.stop().await;

    let mut worker = panicking(&world, "recorder=1").start();
    world.until_accepted(10).await;
    worker.signal("TERM").await;
    assert_eq!(worker.wait_exit().await, Some(0));
    assert!(worker.logged("task_panicked") > 0);
    let called = i64::try_from(world.seen().accepted).expect("few");
    assert_eq!(world.count("status = 'message_sent'").await, called);
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_makes_each_attempt_panic_ends_and_holds_no_other() {
    let world = World::new().await;
    let before = world.insert(peer(json!({"max_attempts": 3}))).await;
    let after = world
        .insert(peer(json!({"max_attempts": 3, "payload": "after"})))
        .await;
    let once = world
        .insert(peer(json!({"at_most_once": true, "payload": "once"})))
        .await;
    world.insert_many(100).await;
    let asked = format!("before_call:{before}=99,after_call:{after}=99,after_call:{once}=99");
    // A panic that kept its place in flight would stop the worker.
    let worker = panicking(&world, &asked).env("WORKER_MAX_IN_FLIGHT", "2");
    let mut ops = OpsWorker::start(worker).await;
    world.until_all_final().await;
    assert!(panics(&ops, "delivery").await > 6.5);
    ops.worker.stop().await;

    let error = world.row(before).await.error.unwrap_or_default();
    assert_contains(&error, &["which is a defect"]);
    assert_eq!(world.calls_of("after").len(), 3);
    for id in [before, after] {
        let row = world.row(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("failed", 3));
        for attempt in world.attempts(id).await {
            assert_eq!(attempt.outcome, "ambiguous");
        }
    }

    assert_eq!(world.row(once).await.status, "unknown");
    assert_eq!(world.calls_of("once").len(), 1);
    assert_eq!(world.count("status = 'message_sent'").await, 100);
    assert_eq!(ops.worker.logged("delivery_panicked"), 1, "it is throttled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_panics_lets_another_message_probe() {
    let world = World::new().await;
    world.set_faults(&["500"]);
    world.insert_many(3).await;
    let mut worker = panicking(&world, "after_call:1=3,after_call:2=3").start();
    worker.until_logged("lane_held").await;
    world.set_faults(&[]);
    world.until_all_final().await;
    worker.stop().await;
    assert_eq!(world.count("status = 'message_sent'").await, 3);
}
