//! `worker dev -- COMMAND`

use testkit::{Finished, Worker, assert_contains, comes_true};

use super::dev::{entries, temporary_directory};

/// Runs a script of the shell as the command, with these options of `worker dev`.
fn dev(options: &[&str], script: &str) -> Worker {
    let mut arguments = vec!["dev"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", script]);
    Worker::new(&arguments)
}

/// A script that inserts a message, waits until it is final, and prints its status and error.
fn deliver(destination: &str) -> String {
    format!(
        "id=$(psql -qAtX \"$DATABASE_URL\" -c \"insert into signaling.outbox (sender, destination, payload) \
         values ('alice', '{destination}', 'hello') returning id\")
         until psql -qAtX -c \"select status, http_status from signaling.outbox where id = $id and finished_at is not null\" \
         | grep .; do sleep 0.1; done"
    )
}

async fn finish(worker: Worker) -> Finished {
    let directory = temporary_directory();
    let path = directory.path().to_str().expect("a path");
    let finished = worker.env("TMPDIR", path).finish().await;
    assert_eq!(entries(directory.path()).len(), 0, "files are left");
    finished
}

#[tokio::test]
async fn the_exit_code_is_the_commands_and_its_output_stays_clean() {
    for (script, code) in [
        ("echo out; exit 7", 7),
        ("echo out", 0),
        ("echo out; kill -KILL $$", 137),
    ] {
        let finished = finish(dev(&[], script)).await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert_eq!(finished.stdout, "out\n");
        assert!(!finished.stderr.contains("INFO"), "{finished:?}");
    }
}

#[tokio::test]
async fn a_command_sees_the_database_and_its_message_is_delivered() {
    // The caller's own database is not the command's.
    let worker = dev(&[], &deliver("bob")).env("PGPORT", "1");
    let finished = finish(worker).await;
    assert_eq!(finished.stdout, "message_sent|200\n", "{finished:?}");
    assert_eq!(finished.code, Some(0));
}

#[tokio::test]
async fn a_command_reads_the_api_and_meets_the_faults_on_request() {
    let script = deliver("bob") + "\necho \"$SIGNALING_API_URL\"";
    let finished = finish(dev(&["--fault", "400:destination=bob"], &script)).await;
    let expected = "failed|400\nhttp://127.0.0.1:";
    assert!(finished.stdout.starts_with(expected), "{finished:?}");
}

#[tokio::test]
async fn a_signal_reaches_the_command_and_nothing_is_left() {
    for (signal, code) in [("INT", 3), ("TERM", 4)] {
        let directory = temporary_directory();
        let script = "trap 'exit 3' INT; trap 'exit 4' TERM; echo $$; while :; do sleep 0.1; done";
        let path = directory.path().to_str().expect("a path");
        let mut running = dev(&[], script).env("TMPDIR", path).start();
        running.until_printed("\n").await;
        let command = format!("/proc/{}", running.stdout.text().trim());
        assert!(std::path::Path::new(&command).exists(), "{command}");
        running.signal(signal).await;
        assert_eq!(running.wait_exit().await, Some(code));
        assert!(
            !std::path::Path::new(&command).exists(),
            "{command} is left"
        );
        assert_eq!(entries(directory.path()).len(), 0, "files are left");
    }
}

#[tokio::test]
async fn a_signal_before_the_command_starts_ends_worker_dev() {
    let directory = temporary_directory();
    let path = directory.path().to_str().expect("a path");
    let mut running = dev(&[], "echo started").env("TMPDIR", path).start();
    let begins = comes_true(testkit::PATIENCE, async || {
        !entries(directory.path()).is_empty()
    })
    .await;
    assert!(begins, "the cluster's directory does not appear");
    running.signal("TERM").await;
    assert_eq!(running.wait_exit().await, Some(143));
    assert_eq!(running.stdout.text(), "");
    let ends = comes_true(testkit::PATIENCE, async || {
        entries(directory.path()).is_empty()
    })
    .await;
    assert!(ends, "files are left");
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_an_error_with_advice() {
    let finished = finish(Worker::new(&["dev", "--", "no-such-program"])).await;
    assert_eq!(finished.code, Some(127), "{finished:?}");
    assert_contains(&finished.stderr, &["`no-such-program` can't be started"]);
    assert!(finished.stderr.contains("-> install the program"));
}
