//! Signals of a supervisor, a terminal or a log rotation.

use std::path::Path;

use serde_json::json;

use harness::{PATIENCE, World, peer, slow_api, worker_binary};

#[tokio::test]
async fn each_signal_that_ends_a_worker_lets_a_call_in_flight_be_recorded() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "ALRM"] {
        let world = World::with(slow_api(1_000)).await;
        let id = world.insert(peer(json!({}))).await;
        let mut worker = world.worker().start();
        world.until_accepted(1).await;
        worker.signal(signal).await;
        worker.until_logged("shutdown_started").await;
        let line = worker.log_line("shutdown_started");
        assert!(line.contains(&format!("signal=\"SIG{signal}\"")), "{line}");
        assert_eq!(worker.wait_exit().await, Some(0), "{signal}");
        let row = world.row(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    }
}

/// A shell and the kernel may each send SIGHUP when a terminal closes, and systemd may send it right after SIGTERM.
#[tokio::test]
async fn hangups_beside_another_signal_do_not_cut_calls_off() {
    for signals in [["HUP", "HUP"], ["HUP", "TERM"], ["TERM", "HUP"]] {
        let world = World::with(slow_api(1_000)).await;
        let id = world.insert(peer(json!({}))).await;
        let mut worker = world.worker().start();
        world.until_accepted(1).await;
        for signal in signals {
            worker.signal(signal).await;
            worker.until_logged("shutdown_started").await;
        }
        assert_eq!(worker.wait_exit().await, Some(0), "{signals:?}");
        assert_eq!(world.row(id).await.status, "message_sent", "{signals:?}");
    }
}

#[tokio::test]
async fn signals_without_a_meaning_leave_a_worker_at_work() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    world.assert_sends().await;
    for (signal, count) in [("USR1", 1), ("USR2", 2), ("XFSZ", 3)] {
        worker.signal(signal).await;
        let holds = async || worker.logged("signal_ignored") == count;
        world.until("the signal is logged", PATIENCE, holds).await;
    }
    worker.signal("PIPE").await;
    world.assert_sends().await;
    worker.stop().await;
}

/// No handler stands in the way of a profiler's own.
#[tokio::test]
async fn signals_of_profilers_end_a_worker_at_once_and_lose_no_message() {
    for signal in ["VTALRM", "PROF", "IO"] {
        let world = World::new().await;
        let mut worker = world.worker().start();
        world.assert_sends().await;
        worker.signal(signal).await;
        assert_eq!(worker.wait_exit().await, None, "{signal}");
        let id = world.insert(peer(json!({}))).await;
        let mut next = world.worker().start();
        assert_eq!(world.until_final(id).await.status, "message_sent");
        next.stop().await;
    }
}

#[tokio::test]
async fn a_worker_under_nohup_outlives_its_terminal() {
    let world = World::new().await;
    let worker = worker_binary().display().to_string();
    let mut worker = world
        .worker()
        .as_command(&[&worker, "run"])
        .binary(Path::new("nohup"))
        .start();
    world.assert_sends().await;
    worker.signal("HUP").await;
    // The worker handles signals in order, so it has handled SIGHUP when it has logged SIGUSR1.
    worker.signal("USR1").await;
    worker.until_logged("signal_ignored").await;
    world.assert_sends().await;
    worker.stop().await;
    let log = worker.stderr.text();
    assert!(log.contains("signal=\"SIGTERM\""), "{log}");
    assert!(!log.contains("SIGHUP"), "{log}");
}

#[tokio::test]
async fn a_closed_terminal_ends_a_demonstration_in_order() {
    let mut dev = harness::Worker::new(&["dev"]).start();
    dev.until_printed("Ctrl-C stops everything").await;
    dev.signal("HUP").await;
    assert_eq!(dev.wait_exit().await, Some(0), "{}", dev.stderr.text());
}
