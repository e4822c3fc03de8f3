use super::*;
use crate::check::Level;
use crate::outbox::LaneStatus;
use crate::pace::DbTime;

fn facts() -> ServerDiagnostics {
    ServerDiagnostics {
        version: "15.4".into(),
        version_num: 150_004,
        is_standby: false,
        is_read_only: false,
        tls_version: Some("TLSv1.3".into()),
        user: "signaling_worker".into(),
        server_left: 90,
        role_left: None,
        database_left: None,
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
    let judged =
        |facts: &ServerDiagnostics, ms| server("db:5432", facts, distance(ms, 0), false).remove(0);
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
    assert_told(&judged(&read_only, 1), Level::Fail, "takes no writes");
    let old = ServerDiagnostics {
        version_num: 110_022,
        ..facts()
    };
    assert_told(&judged(&old, 1), Level::Fail, "PostgreSQL");
}

#[test]
fn a_pooler_is_told_of_with_what_it_means() {
    let findings = server("db:6432", &facts(), distance(1, 0), true);
    assert_told(&findings[0], Level::Ok, "by way of a pooler");
    assert_told(&findings[1], Level::Ok, "instead of listening");
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
fn clocks_that_differ_matter_only_to_tokens_that_are_made_here() {
    assert_told(
        &clock(distance(1, -3_600), false),
        Level::Ok,
        "3600.000 s behind",
    );
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
fn migrations_that_are_missing_are_named() {
    let version = |found, missing: &[(i64, &'static str)]| SchemaVersion {
        found,
        needed: 4,
        missing: missing.to_vec(),
    };
    assert_told(&schema(&version(Some(4), &[])), Level::Ok, "at version 4");
    assert_told(&schema(&version(Some(5), &[])), Level::Ok, "newer");
    assert_told(
        &schema(&version(None, &[(1, "outbox")])),
        Level::Fail,
        "no outbox",
    );
    let outdated = version(Some(3), &[(4, "retention")]);
    assert_told(&schema(&outdated), Level::Fail, "4 (retention)");
}

#[test]
fn rights_that_are_missing_are_named() {
    assert_told(&rights("w", &[]), Level::Ok, "w may");
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
fn a_transaction_is_long_by_its_time_and_where_that_is_hidden_by_what_has_begun_since() {
    let open = |age_s, transactions_since| {
        snapshots(&[OldTransaction {
            holder: "session 7 of report".into(),
            age_s,
            transactions_since,
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
    let judged = |change: fn(&mut LaneStatus)| lane("default", 500.0, &lanes(change));
    assert_told(&judged(|_| ()), Level::Ok, "at most 500 calls/s");
    assert_told(&lane("eu", 500.0, &lanes(|_| ())), Level::Ok, "no worker");
    let paused = judged(|lane| {
        lane.paused_at = Some(DbTime::from_micros(0));
        lane.paused_by = Some("ann@host".into());
        lane.pause_reason = Some("moving house".into());
    });
    assert_told(&paused, Level::Warn, "paused by ann@host: moving house");
    let unauthorized = judged(|lane| {
        lane.hold = Some("unauthorized".into());
        lane.hold_reason = Some("HTTP 401".into());
    });
    assert_told(&unauthorized, Level::Warn, "unauthorized: HTTP 401");
    assert_told(
        &judged(|lane| lane.told_to_wait = true),
        Level::Warn,
        "pause",
    );
    assert_told(
        &judged(|lane| lane.configured_per_s = 200.0),
        Level::Warn,
        "200 calls/s",
    );
}
