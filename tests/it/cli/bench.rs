//! `worker bench`

use serde_json::Value;

use testkit::{Machine, Worker};

/// Measures, as short as it can.
async fn measured(scenario: &str) -> (Value, String) {
    let _machine = Machine::shared().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let finished = Worker::new(&["bench", "--runs", "1", "--scale", "0.001", "--json"])
        .arg(file.path().to_str().expect("a path"))
        .arg(scenario)
        // None of the user's own settings may reach what is measured.
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .env("WORKER_RATE", "1")
        .finish()
        .await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let json = std::fs::read(file.path()).expect("written");
    let report = serde_json::from_slice(&json).expect("JSON");
    (report, finished.stdout)
}

fn figure(report: &Value, case: usize, name: &str) -> f64 {
    let case = &report["scenarios"][0]["cases"][case];
    let value = &case["median"][name];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no {name}: {case}"))
}

#[tokio::test]
async fn a_benchmark_measures_the_worker_beside_the_hand_written_loop_and_says_what_is_reached() {
    let (report, table) = measured("drain").await;
    for case in [0, 1] {
        assert!(figure(&report, case, "messages_per_s") > 0.0);
        assert!(figure(&report, case, "wal_bytes_per_message") > 100.0);
        assert!(figure(&report, case, "dead_tuples_per_message") >= 2.0);
    }
    // What each message of the loop is: a claim and a record.
    assert!(figure(&report, 1, "transactions_per_message") >= 2.0);
    assert!(figure(&report, 0, "transactions_per_message") < 0.5);
    let targets = report["scenarios"][0]["targets"].as_array();
    assert_eq!(targets.map(Vec::len), Some(2));
    assert!(table.contains("worker     hand-written loop"), "{table}");
    assert!(table.contains("messages/s, times the loop's"), "{table}");
}

#[tokio::test]
async fn a_benchmark_keeps_the_limit_and_shares_it_among_processes() {
    let (report, _) = measured("pace").await;
    for case in [0, 1, 2] {
        let fullest = figure(&report, case, "fullest_second_calls");
        assert!((100.0..=500.0).contains(&fullest), "{fullest}");
    }
}
