use super::*;
use crate::check::Level;
use crate::outbox::{LaneState, LaneStatus};
use crate::pace::DbTime;

fn facts() -> ServerDiagnostics {
    ServerDiagnostics {
        version: "15.4".into(),
        version_num: 150_004,
        is_standby: false,
        is_read_only: false,
        tls_version: Some("TLSv1.3".into()),
        user: "signaling_worker".into(),
        database: "shop".into(),
        default_isolation: "read committed".into(),
        max_prepared_transactions: 0,
        notify: None,
        tables_with_row_security: Vec::new(),
        tables_closed_to_functions: Vec::new(),
        tables_with_hidden_rows: Vec::new(),
        server_limit: 97,
        role_limit: None,
        database_limit: None,
        sees_all_sessions: true,
        server_left: 90,
        role_left: None,
        database_left: None,
        idle_session_timeout_ms: 0,
        autovacuum: true,
        tables_without_autovacuum: Vec::new(),
    }
}

fn distance(round_trip_ms: u64, host_ahead_s: i64) -> DatabaseLatency {
    DatabaseLatency {
        round_trip: Duration::from_millis(round_trip_ms),
        host_ahead: time::Duration::seconds(host_ahead_s),
    }
}

fn assert_told(finding: &Finding, level: Level, phrase: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.found.contains(phrase), "{finding:?}");
    assert_eq!(finding.advice.is_some(), level != Level::Ok, "{finding:?}");
}

#[test]
fn a_server_has_to_take_writes_and_to_be_new_enough() {
    let judged = |facts: &ServerDiagnostics, ms| server("db:5432", facts, distance(ms, 0), false);
    assert_told(&judged(&facts(), 1), Level::Ok, "TLSv1.3, 1.00 ms away");
    let plain = ServerDiagnostics {
        tls_version: None,
        ..facts()
    };
    assert_told(&judged(&plain, 1), Level::Ok, "without TLS");
    assert_told(&judged(&facts(), 50), Level::Warn, "50.00 ms away");
    let standby = ServerDiagnostics {
        is_standby: true,
        is_read_only: true,
        ..facts()
    };
    assert_told(&judged(&standby, 1), Level::Fail, "a standby");
    let read_only = ServerDiagnostics {
        is_read_only: true,
        ..facts()
    };
    assert_told(&judged(&read_only, 1), Level::Fail, "read-only");
    let old = ServerDiagnostics {
        version_num: 130_022,
        ..facts()
    };
    assert_told(&judged(&old, 1), Level::Fail, "PostgreSQL");
}

#[test]
fn a_pooler_is_told_of_with_what_it_means() {
    let server = server("db:6432", &facts(), distance(1, 0), true);
    assert_told(&server, Level::Ok, "through a pooler");
    assert_told(&pooler(), Level::Ok, "the worker polls");
    assert_told(
        &connections(
            &ServerDiagnostics {
                server_left: 1,
                ..facts()
            },
            7,
            true,
        ),
        Level::Ok,
        "7",
    );
}

#[test]
fn clocks_that_differ_by_more_than_a_minute_are_warned_of() {
    let warned = clock(distance(1, -3_600), false);
    assert_told(&warned, Level::Warn, "3600.000 s behind");
    assert_told(
        &clock(distance(1, 59), true),
        Level::Ok,
        "59.000 s ahead of",
    );
    assert_told(
        &clock(distance(1, 61), true),
        Level::Warn,
        "61.000 s ahead of",
    );
}

#[test]
fn missing_migrations_are_named() {
    let version = |found, missing: Option<&str>| SchemaVersion {
        functions_found: Some(1),
        functions_needed: 1,
        encoding: "UTF8".into(),
        found,
        needed: 4,
        missing: missing.into_iter().map(str::to_owned).collect(),
    };
    assert_told(&schema(&version(Some(4), None)), Level::Ok, "at version 4");
    assert_told(&schema(&version(Some(5), None)), Level::Ok, "newer");
    let emptied = version(None, Some("1 (outbox)"));
    assert_told(&schema(&emptied), Level::Fail, "is empty");
    let unmigrated = SchemaVersion {
        functions_found: None,
        ..emptied
    };
    assert_told(&schema(&unmigrated), Level::Fail, "no outbox");
    let outdated = version(Some(3), Some("4 (retention)"));
    assert_told(&schema(&outdated), Level::Fail, "4 (retention)");
}

fn version(functions_found: Option<i32>, encoding: &str) -> SchemaVersion {
    SchemaVersion {
        found: Some(2),
        needed: 2,
        missing: Vec::new(),
        functions_found,
        functions_needed: 3,
        encoding: encoding.into(),
    }
}

#[test]
fn functions_may_be_newer_than_the_worker_and_not_older() {
    let judged =
        |found| functions(&version(found, "UTF8")).expect("a finding, as there is a schema");
    assert_told(&judged(Some(3)), Level::Ok, "at version 3");
    assert_told(&judged(Some(4)), Level::Ok, "newer than this worker's 3");
    for (found, phrase) in [(Some(2), "at version 2"), (None, "is missing")] {
        let finding = judged(found);
        assert_told(&finding, Level::Fail, phrase);
        let advice = finding.advice.unwrap_or_default();
        assert!(advice.starts_with("run `worker migrate`"), "{advice}");
    }
    let nothing = SchemaVersion {
        found: None,
        ..version(None, "UTF8")
    };
    assert_eq!(functions(&nothing), None);
}

#[test]
fn another_encoding_than_utf8_fails() {
    assert_told(&encoding(&version(None, "UTF8")), Level::Ok, "UTF8");
    let other = encoding(&version(None, "LATIN1"));
    assert_eq!(other.level, Level::Fail);
    assert!(other.found.contains("LATIN1") && other.found.contains("encoding 'UTF8'"));
}

#[test]
fn another_default_isolation_is_told_of_and_does_no_harm() {
    let judged = |default: &str| {
        isolation(&ServerDiagnostics {
            default_isolation: default.into(),
            ..facts()
        })
    };
    assert_eq!(judged("read committed"), None);
    let serializable = judged("serializable").expect("a finding");
    assert_told(&serializable, Level::Ok, "serializable by default");
}

#[test]
fn row_security_fails_only_where_it_holds_for_the_functions() {
    let judged = |tables: &[&str], closed: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        row_security(&ServerDiagnostics {
            tables_with_row_security: names(tables),
            tables_closed_to_functions: names(closed),
            ..facts()
        })
    };
    assert_told(&judged(&[], &[]), Level::Ok, "off");
    assert_told(&judged(&["outbox"], &[]), Level::Ok, "on for outbox");
    assert_told(
        &judged(&["lane", "outbox"], &["lane"]),
        Level::Fail,
        "policies on lane apply",
    );
}

#[test]
fn prepared_transactions_disable_notifications_unless_a_setting_objects() {
    let judged = |max_prepared_transactions, notify: Option<&str>, pooler| {
        notifications(
            &ServerDiagnostics {
                max_prepared_transactions,
                notify: notify.map(str::to_owned),
                ..facts()
            },
            pooler,
        )
    };
    assert_told(&judged(0, None, false), Level::Ok, "inserts notify");
    assert_told(&judged(0, Some(""), false), Level::Ok, "inserts notify");
    assert_told(&judged(0, Some("off"), false), Level::Ok, "every 200 ms");
    assert_told(&judged(9, Some("off"), false), Level::Ok, "every 200 ms");
    assert_told(
        &judged(9, Some("on"), false),
        Level::Ok,
        "can't be prepared",
    );
    assert_told(&judged(9, None, true), Level::Ok, "behind a pooler");
    let finding = judged(9, None, false);
    assert_told(&finding, Level::Warn, "every 200 ms");
    assert!(
        finding.advice.is_some_and(
            |advice| advice.contains("alter database shop set signaling.notify = 'on'")
        )
    );
}

#[test]
fn a_role_that_is_no_operator_is_told_of_and_can_be_a_worker() {
    assert_told(&operator("w", &[]), Level::Ok, "buttons work");
    let missing = operator("w", &["execute on function signaling.pause".into()]);
    assert_told(&missing, Level::Ok, "worker grant operator w");
}

#[test]
fn rights_that_are_missing_are_named() {
    assert_told(&rights("w", &[]), Level::Ok, "rights of a worker");
    let missing = rights("w", &["select on signaling.lane".into()]);
    assert_told(&missing, Level::Fail, "select on signaling.lane");
    assert!(
        missing
            .advice
            .is_some_and(|advice| advice.contains("worker grant worker w"))
    );
}

#[test]
fn the_tightest_bound_on_connections_counts() {
    let left = |server_left, role_left, database_left| {
        connections(
            &ServerDiagnostics {
                server_left,
                role_left,
                database_left,
                ..facts()
            },
            7,
            false,
        )
    };
    assert_told(&left(7, None, None), Level::Ok, "7 of max_connections");
    assert_told(&left(6, None, None), Level::Warn, "6 of max_connections");
    assert_told(&left(90, Some(6), Some(7)), Level::Warn, "6 of the role's");
    assert_told(
        &left(90, Some(80), Some(3)),
        Level::Warn,
        "3 of the database's",
    );
}

#[test]
fn an_autovacuum_that_is_off_is_warned_of() {
    assert_told(&autovacuum(&facts()), Level::Ok, "on");
    let off = ServerDiagnostics {
        autovacuum: false,
        ..facts()
    };
    assert_told(&autovacuum(&off), Level::Warn, "whole server");
    let table = ServerDiagnostics {
        tables_without_autovacuum: vec!["outbox".into()],
        ..facts()
    };
    assert_told(&autovacuum(&table), Level::Warn, "outbox");
}

#[test]
fn a_transaction_is_long_by_its_age_or_by_the_transactions_since() {
    let open = |age_s, transactions_since| {
        snapshots(&[OldTransaction {
            holder: "session 7 of report".into(),
            age_s,
            transactions_since,
            is_prepared: false,
        }])
    };
    assert_told(&snapshots(&[]), Level::Ok, "no transaction");
    assert_told(&open(Some(299.0), 5_000_000), Level::Ok, "no transaction");
    assert_told(
        &open(Some(601.9), 1),
        Level::Warn,
        "session 7 of report for 10m 1s",
    );
    assert_told(&open(None, 999), Level::Ok, "no transaction");
    assert_told(&open(None, 1_000_001), Level::Warn, "1000001 transactions");
}

fn lanes(change: impl FnOnce(&mut LaneStatus)) -> Vec<AppLane> {
    let mut lane = LaneStatus::sending();
    change(&mut lane);
    vec![AppLane {
        app: "default".into(),
        lane: Some(lane),
        ..AppLane::default()
    }]
}

#[test]
fn a_lane_that_does_not_send_is_told_of_with_the_reason() {
    let hold = |lane: &mut LaneStatus, kind| {
        lane.obstacles = LaneStatus::sending().held_by(&[kind]).obstacles;
    };
    let judged = |change: &dyn Fn(&mut LaneStatus)| lane("default", 500.0, &lanes(change));
    assert_told(&judged(&|_| ()), Level::Ok, "at most 500 calls/s");
    assert_told(&lane("eu", 500.0, &lanes(|_| ())), Level::Ok, "no worker");
    let paused = judged(&|lane| {
        lane.paused_at = Some(DbTime::from_micros(0));
        lane.paused_by = Some("ann@host".into());
        lane.pause_reason = Some("moving house".into());
        hold(lane, LaneState::Paused);
    });
    assert_told(&paused, Level::Warn, "paused by ann@host: moving house");
    let unauthorized = judged(&|lane| {
        lane.hold = Some("unauthorized".into());
        lane.hold_reason = Some("HTTP 401".into());
        hold(lane, LaneState::Unauthorized);
    });
    assert_told(&unauthorized, Level::Warn, "unauthorized: HTTP 401");
    assert_told(
        &judged(&|lane| hold(lane, LaneState::Waiting)),
        Level::Warn,
        "pause",
    );
    assert_told(
        &judged(&|lane| lane.configured_per_s = 200.0),
        Level::Warn,
        "200 calls/s",
    );
}
