//! No command panics if the reader of standard output has gone, or the disk is full.

use std::fs::File;
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use harness::{Finished, Worker, World, peer, worker_binary};

/// The standard output of a command.
#[derive(Debug, Clone, Copy)]
enum Output {
    /// A pipe whose reader has gone, as after `| head -1`.
    Closed,
    /// A disk that is full.
    Full,
}

impl Output {
    fn stdio(self) -> Stdio {
        match self {
            Self::Closed => std::io::pipe().expect("a pipe").1.into(),
            Self::Full => {
                let full = File::options().write(true).open("/dev/full");
                full.expect("a full device").into()
            }
        }
    }
}

/// A command with this output, by its words.
fn command(world: &World, words: &str, output: Output) -> Worker {
    let words: Vec<_> = words.split(' ').collect();
    let command = world.worker().as_command(&words);
    command.stdout(output.stdio())
}

/// Every command that prints and ends. With an output, each one succeeds.
const COMMANDS: [&str; 21] = [
    "--help",
    "--version",
    "run --help",
    "help status",
    "check",
    "check --json",
    "migrate",
    "grant reader grafana --print",
    "status",
    "status --json",
    "workers",
    "workers --json",
    "message 1",
    "message 1 --json",
    "pause default",
    "resume default",
    "limit default 100",
    "retry --app default --dry-run",
    "retry --app default",
    "cancel 1",
    "adopt --environment=tests --cancel-pending",
];

/// A database with a lane, and message 1, which waits.
async fn world_with_a_message() -> World {
    let world = World::new().await;
    world.open_lane("default").await;
    world.insert(peer(json!({}))).await;
    world
}

#[tokio::test]
async fn a_closed_pipe_changes_no_exit_code() {
    let world = world_with_a_message().await;
    for words in COMMANDS {
        let Finished { code, stderr, .. } = command(&world, words, Output::Closed).finish().await;
        assert_eq!(code, Some(0), "{words}: {stderr}");
        let is_quiet = !stderr.contains("error") && !stderr.contains("panicked");
        assert!(is_quiet, "{words}: {stderr}");
    }
}

#[tokio::test]
async fn every_command_that_prints_fails_on_a_full_disk() {
    let world = world_with_a_message().await;
    for words in COMMANDS {
        let full = command(&world, words, Output::Full);
        let finished = full.fails(1, &["No space left on device"]).await;
        let begins = finished.stderr.starts_with("error: ");
        assert!(begins, "{words}: {finished:?}");
    }
    let cancelled = world.count("status = 'cancelled'").await;
    assert_eq!(cancelled, 1, "the command's work is done all the same");
}

#[tokio::test]
async fn a_change_on_a_full_disk_is_reported_as_done_on_standard_error() {
    let world = world_with_a_message().await;
    let role = format!("output_{}", std::process::id());
    world.insert_failed("default").await;
    world
        .execute(&format!(
            "create role {role} login; drop function signaling.pause"
        ))
        .await;
    for change in [
        "migrate",
        &format!("grant reader {role}"),
        "pause default",
        "resume default",
        "limit default 100",
        "retry --app default",
        "cancel 1",
        "adopt --environment=tests --cancel-pending",
    ] {
        let finished = command(&world, change, Output::Full).fails(1, &[]).await;
        let said = "error: the command is done, but its report could not be written: ";
        let begins = finished.stderr.starts_with(said);
        assert!(begins, "{change}: {finished:?}");
    }
    world
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn a_usage_error_does_not_panic_without_standard_error() {
    for output in [Output::Closed, Output::Full] {
        for (argument, code) in [("delivver", 2), ("status", 2), ("health", 1)] {
            let status = Command::new(worker_binary())
                .arg(argument)
                .env("WORKER_OPS_ADDR", "127.0.0.1:1")
                .env_remove("DATABASE_URL")
                .stderr(output.stdio())
                .status()
                .await
                .expect("the binary starts");
            assert_eq!(status.code(), Some(code), "{argument} {output:?}");
        }
    }
}

#[tokio::test]
async fn a_playground_and_the_simulated_api_fail_on_a_full_disk() {
    let closed = Worker::new(&["dev", "--", "true"]).stdout(Output::Closed.stdio());
    assert_eq!(closed.finish().await.code, Some(0));
    for arguments in [&["dev"][..], &["simulate", "--listen=127.0.0.1:0"]] {
        let full = Worker::new(arguments).stdout(Output::Full.stdio());
        full.fails(1, &["No space left on device"]).await;
    }
}
