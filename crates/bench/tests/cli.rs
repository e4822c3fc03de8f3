//! The program `bench` as its users run it.

use std::path::Path;
use std::process::{Command, Output};

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// A command without the settings of the shell that runs the tests, except for the programs' paths.
fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .env_remove("AGORA_BASE_URL");
    command
}

fn run(mut command: Command) -> Output {
    command.output().expect("bench starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_help_lists_scenarios_examples_and_exit_codes() {
    let output = run(bench(&["--help"]));
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "drain",
        "counts",
        "bench drain delay --runs 5",
        "Exit codes",
    ] {
        assert!(help.contains(expected), "no {expected:?} in {help}");
    }
    assert!(!help.contains("hand-written-loop"), "{help}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for (arguments, expected) in [
        (&["sprint"][..], "invalid value 'sprint'"),
        (&["--runs", "0"], "0 is not in 1..=100"),
        (&["--scale", "2"], "write a number from 0.001 to 1"),
    ] {
        let output = run(bench(arguments));
        assert_eq!(output.status.code(), Some(2));
        let stderr = stderr(&output);
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_missing_worker_binary_is_an_error_that_names_the_build_command() {
    let mut command = bench(&["idle"]);
    command.env("WORKER_BIN", "/nowhere/worker");
    let output = run(command);
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    let expected = "error: there is no worker binary at /nowhere/worker: run `make bench`";
    assert!(stderr.starts_with(expected), "{stderr}");
}

#[test]
fn the_hand_written_loop_names_a_setting_that_it_lacks() {
    let output = run(bench(&["--hand-written-loop"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: DATABASE_URL is not set\n");
}

#[test]
fn drain_compares_the_worker_with_the_hand_written_loop() {
    let given = std::env::var_os("WORKER_BIN").is_some();
    if !given && !Path::new(BENCH).with_file_name("worker").exists() {
        harness::skip("the test of the benchmark: there is no worker binary beside it");
        return;
    }
    let mut command = bench(&["drain", "--runs", "1", "--scale", "0.001"]);
    command
        // The user's own settings must not reach the measured processes.
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .env("WORKER_RATE", "1");
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let table = String::from_utf8_lossy(&output.stdout);
    let measured = |name: &str| -> Vec<f64> {
        let mut rows = table.lines().map(str::split_whitespace);
        let mut row = rows
            .find(|row| row.clone().next() == Some(name))
            .unwrap_or_else(|| panic!("no {name}: {table}"));
        row.by_ref()
            .skip(1)
            .filter_map(|value| value.parse().ok())
            .collect()
    };
    for (name, least) in [("messages_per_s", 1.0), ("wal_bytes_per_message", 100.0)] {
        let values = measured(name);
        assert!(
            values.len() == 2 && values.iter().all(|value| *value >= least),
            "{table}"
        );
    }
    // The worker claims and records in batches; the loop claims and records each message in a transaction.
    let transactions = measured("transactions_per_message");
    assert!(transactions[0] < 0.5 && transactions[1] >= 2.0, "{table}");
    assert!(table.contains("worker     hand-written loop"), "{table}");
    assert!(
        table.contains("messages_per_s, worker / hand-written loop: "),
        "{table}"
    );
}
