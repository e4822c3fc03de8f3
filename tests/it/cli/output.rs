//! No command panics if the reader of standard output has gone, or the disk is full.

use std::fs::File;
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use testkit::{PATIENCE, World, peer, worker_binary};

/// Where the standard output of a command goes.
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
            Self::Closed => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                writer.into()
            }
            Self::Full => File::options()
                .write(true)
                .open("/dev/full")
                .expect("a full device")
                .into(),
        }
    }
}

/// Waits for the end of a command. Returns its exit code and what it says on standard error.
async fn finish(mut command: Command) -> (Option<i32>, String) {
    let child = command
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let finished = tokio::time::timeout(PATIENCE * 2, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .expect("its output");
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    (finished.status.code(), stderr)
}

/// Runs a command with that output. Returns its exit code and what it says on standard error.
async fn run(world: &World, arguments: &[&str], output: Output) -> (Option<i32>, String) {
    let mut command = Command::new(worker_binary());
    command
        .args(arguments)
        .env("DATABASE_URL", &world.url)
        .env("AGORA_APP_ID", testkit::APP_ID)
        .env("AGORA_API_KEY", testkit::API_KEY)
        .env("AGORA_API_SECRET", testkit::API_SECRET)
        .env("AGORA_BASE_URL", world.simulator.base_url())
        .stdin(Stdio::null())
        .stdout(output.stdio());
    finish(command).await
}

/// Every command that prints and ends, with the exit code that it has where its output is read.
fn commands() -> Vec<(Vec<&'static str>, i32)> {
    vec![
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["run", "--help"], 0),
        (vec!["help", "status"], 0),
        (vec!["check"], 0),
        (vec!["check", "--json"], 0),
        (vec!["migrate"], 0),
        (vec!["grant", "reader", "grafana", "--print"], 0),
        (vec!["status"], 0),
        (vec!["status", "--json"], 0),
        (vec!["workers"], 0),
        (vec!["workers", "--json"], 0),
        (vec!["message", "1"], 0),
        (vec!["message", "1", "--json"], 0),
        (vec!["pause", "default"], 0),
        (vec!["resume", "default"], 0),
        (vec!["limit", "default", "100"], 0),
        (vec!["retry", "--app", "default", "--dry-run"], 0),
        (vec!["retry", "--app", "default"], 0),
        (vec!["cancel", "1"], 0),
        (vec!["adopt", "--environment=tests", "--cancel-pending"], 0),
    ]
}

/// A database with a lane, and message 1, which waits.
async fn world_with_a_message() -> World {
    let world = World::new().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    worker.stop().await;
    world.insert(peer(json!({}))).await;
    world
}

#[tokio::test]
async fn a_closed_pipe_changes_no_exit_code() {
    let world = world_with_a_message().await;
    for (arguments, expected) in commands() {
        let (code, stderr) = run(&world, &arguments, Output::Closed).await;
        assert_eq!(code, Some(expected), "{arguments:?}: {stderr}");
        let is_quiet = !stderr.contains("error") && !stderr.contains("panicked");
        assert!(is_quiet, "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn every_command_that_prints_fails_on_a_full_disk() {
    let world = world_with_a_message().await;
    for (arguments, _) in commands() {
        let (code, stderr) = run(&world, &arguments, Output::Full).await;
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("No space left on device"),
            "{arguments:?}: {stderr}"
        );
    }
    let cancelled = world.count("status = 'cancelled'").await;
    assert_eq!(cancelled, 1, "the command's work is done all the same");
}

#[tokio::test]
async fn a_change_on_a_full_disk_is_reported_as_done_on_standard_error() {
    let world = world_with_a_message().await;
    let role = format!("output_{}", std::process::id());
    world.execute(&format!("create role {role} login")).await;
    let failed = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set status = 'failed', attempts = 1, finished_at = now() where id = {failed};
             drop function signaling.pause"
        ))
        .await;
    let changes = [
        vec!["migrate"],
        vec!["grant", "reader", &role],
        vec!["pause", "default"],
        vec!["resume", "default"],
        vec!["limit", "default", "100"],
        vec!["retry", "--app", "default"],
        vec!["cancel", "1"],
        vec!["adopt", "--environment=tests", "--cancel-pending"],
    ];
    for arguments in &changes {
        let (code, stderr) = run(&world, arguments, Output::Full).await;
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        let said = "error: the command took effect, but its report could not be written: ";
        assert!(stderr.starts_with(said), "{arguments:?}: {stderr}");
    }
    world
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn a_usage_error_does_not_panic_without_standard_error() {
    for output in [Output::Closed, Output::Full] {
        for (arguments, code) in [(&["delivver"][..], 2), (&["status"], 2), (&["health"], 1)] {
            let status = Command::new(worker_binary())
                .args(arguments)
                .env("WORKER_OPS_ADDR", "127.0.0.1:1")
                .env_remove("DATABASE_URL")
                .stderr(output.stdio())
                .status()
                .await
                .expect("the binary starts");
            assert_eq!(status.code(), Some(code), "{arguments:?} {output:?}");
        }
    }
}

#[tokio::test]
async fn a_playground_fails_on_a_full_disk() {
    let mut command = Command::new(worker_binary());
    command.arg("dev").stdout(Output::Full.stdio());
    let (code, stderr) = finish(command).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
}

#[tokio::test]
async fn the_simulated_api_reports_a_full_disk() {
    let mut command = Command::new(worker_binary());
    command
        .args(["simulate", "--listen=127.0.0.1:0"])
        .stdout(Output::Full.stdio());
    let (code, stderr) = finish(command).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
}
