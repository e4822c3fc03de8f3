//! A stalled reader of the log, like a terminal after Ctrl-S or a hung log collector. The pipe fills up.

use std::time::Duration;

use super::ops_client::OpsWorker;
use super::prometheus_text::Samples;
use harness::{PATIENCE, World, until};

/// An idle worker waits for its last log lines and its last stats before it ends.
const END: Duration = Duration::from_secs(8);

async fn dropped_lines(ops: &OpsWorker) -> f64 {
    let samples = Samples::of(ops).await;
    samples.value("signaling_log_lines_dropped_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_a_stalled_log_sends_messages_and_ends_in_time() {
    let world = World::new().await;
    let worker = world
        .worker()
        .env("WORKER_LOG", "trace")
        .env("WORKER_RATE", "2000");
    let mut ops = OpsWorker::start(worker).await;
    world.assert_sends().await;
    assert!(dropped_lines(&ops).await < 1.0, "the log is read");

    ops.worker.stall_log(true);
    world.insert_many(3_000).await;
    world
        .until("all messages are sent", PATIENCE * 2, async || {
            world.count("status = 'message_sent'").await == 3_001
        })
        .await;
    let mut sent = 3_001;
    while dropped_lines(&ops).await < 1.0 {
        assert!(sent < 20_000, "no line is dropped");
        world.insert_many(1_000).await;
        world.until_all_final().await;
        sent += 1_000;
    }

    ops.worker.stall_log(false);
    ops.worker.until_logged("log_lines_dropped").await;
    world.until_all_final().await;

    // These lines fill the pipe.
    ops.worker.stall_log(true);
    world.insert_many(1_000).await;
    world.until_all_final().await;
    ops.worker.signal("TERM").await;
    let has_ended = async || !ops.worker.is_running();
    until("the worker has ended", END, has_ended).await;
    assert_eq!(ops.worker.wait_exit().await, Some(0));
    let rows = world.count("true").await;
    let calls = world.seen().calls;
    assert_eq!(calls, rows.unsigned_abs(), "a call is repeated");
}
