//! A reader of the log that stalls, as a terminal that is stopped with Ctrl-S or a log collector that hangs: the pipe
//! fills up.

use std::time::{Duration, Instant};

use super::door::Watched;
use super::text::Samples;
use testkit::{PATIENCE, World, warm_up};

/// The most time that an idle worker takes to end: its last lines and its last stats are waited for.
const END: Duration = Duration::from_secs(8);

async fn dropped_lines(watched: &Watched) -> f64 {
    let metrics = watched.door.get("/metrics").await.body;
    Samples::read(&metrics).value("signaling_log_lines_dropped_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_and_a_worker_ends_in_time_while_nobody_reads_its_log() {
    let world = World::new().await;
    let worker = world
        .worker()
        .env("WORKER_LOG", "trace")
        .env("WORKER_RATE", "2000");
    let mut watched = Watched::start(worker).await;
    warm_up(&world).await;
    assert!(dropped_lines(&watched).await < 1.0, "the log is read");

    watched.worker.stall_log(true);
    world.insert_many(3_000).await;
    world
        .until("all messages are sent", PATIENCE * 2, async || {
            world.count("status = 'message_sent'").await == 3_001
        })
        .await;
    let mut sent = 3_001;
    while dropped_lines(&watched).await < 1.0 {
        assert!(sent < 20_000, "no line is dropped");
        world.insert_many(1_000).await;
        world.until_all_final().await;
        sent += 1_000;
    }

    watched.worker.stall_log(false);
    watched.worker.until_logged("log_lines_dropped").await;
    world.until_all_final().await;

    // More than a pipe holds.
    watched.worker.stall_log(true);
    world.insert_many(1_000).await;
    world.until_all_final().await;
    let told_at = Instant::now();
    watched.worker.signal("TERM").await;
    while watched.worker.is_running() {
        assert!(told_at.elapsed() < END, "the worker does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(watched.worker.wait_exit().await, Some(0));
    let rows = world.count("true").await;
    assert_eq!(
        i64::try_from(world.seen().calls),
        Ok(rows),
        "a call is repeated"
    );
}
