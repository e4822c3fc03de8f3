use std::time::Duration;

use super::*;
use crate::outbox::{
    AppStatus, ConnectionLimit, DatabaseLatency, LaneState, LaneStatus, Obstacle, Pending,
    SCHEMA_CHECKS, ServerDiagnostics,
};

fn facts() -> ServerDiagnostics {
    ServerDiagnostics {
        version: "15.4".into(),
        version_num: 150_004,
        is_read_only: false,
        tls_version: Some("TLSv1.3".into()),
        user: "signaling_worker".into(),
        database: "shop".into(),
        max_prepared_transactions: 0,
        notify: None,
    }
}

fn latency(round_trip_ms: u64, host_ahead_s: i64) -> DatabaseLatency {
    DatabaseLatency {
        round_trip: Duration::from_millis(round_trip_ms),
        host_ahead_us: host_ahead_s * 1_000_000,
    }
}

/// Asserts the level, a phrase of the finding or its advice, and that all but `ok` has advice.
fn assert_finding(finding: &Finding, level: Level, phrase: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    let advice = finding.advice.as_deref();
    let is_found = finding.found.contains(phrase) || advice.unwrap_or_default().contains(phrase);
    assert!(is_found, "{phrase:?}: {finding:?}");
    assert_eq!(advice.is_some(), level != Level::Ok, "{finding:?}");
}

#[test]
fn a_server_has_to_take_writes_and_to_be_new_enough() {
    type Change = fn(&mut ServerDiagnostics);
    let cases: [(Change, u64, Level, &str); 5] = [
        (|_| (), 1, Level::Ok, "TLSv1.3, 1.00 ms away"),
        (|f| f.tls_version = None, 1, Level::Ok, "without TLS"),
        (|_| (), 50, Level::Warn, "50.00 ms away"),
        (|f| f.is_read_only = true, 1, Level::Fail, "read-only"),
        (|f| f.version_num = 130_022, 1, Level::Fail, "PostgreSQL 14"),
    ];
    for (change, ms, level, phrase) in cases {
        let mut facts = facts();
        change(&mut facts);
        let finding = server::server("db:5432", &facts, latency(ms, 0), false);
        assert_finding(&finding, level, phrase);
    }
}

#[test]
fn an_unusable_host_warns_although_another_host_serves() {
    let usable = || Ok("a:1 takes writes".to_owned());
    let refused = || Err("b:2 refused".to_owned());
    assert_eq!(server::hosts(&[refused()]), None);
    for (second, level, phrase) in [
        (usable(), Level::Ok, "a:1 takes writes; a:1 takes writes"),
        (refused(), Level::Warn, "a:1 takes writes; b:2 refused"),
    ] {
        let finding = server::hosts(&[usable(), second]);
        assert_finding(&finding.expect("a finding"), level, phrase);
    }
}

#[test]
fn clocks_that_differ_by_more_than_a_minute_warn() {
    for (seconds, level, phrase) in [
        (-59, Level::Ok, "59.000 s behind the database's"),
        (61, Level::Warn, "61.000 s ahead of the database's"),
        (-61, Level::Warn, "61.000 s behind the database's"),
    ] {
        assert_finding(&server::clock(latency(1, seconds)), level, phrase);
    }
}

#[test]
fn prepared_transactions_disable_notifications_unless_a_setting_objects() {
    for (prepared, notify, pooler, level, phrase) in [
        (0, None, false, Level::Ok, "inserts notify"),
        (0, Some(""), false, Level::Ok, "inserts notify"),
        (0, Some("off"), false, Level::Ok, "signaling.notify is off"),
        (9, Some("off"), false, Level::Ok, "signaling.notify is off"),
        (9, Some("on"), false, Level::Ok, "inserts notify"),
        (9, None, true, Level::Ok, "behind a pooler"),
        (9, None, false, Level::Warn, "alter database shop set"),
    ] {
        let facts = ServerDiagnostics {
            max_prepared_transactions: prepared,
            notify: notify.map(str::to_owned),
            ..facts()
        };
        assert_finding(&server::notifications(&facts, pooler), level, phrase);
    }
}

#[test]
fn too_few_connections_for_this_worker_or_for_all_warn() {
    for (available, most, alive_workers, level, phrase) in [
        (7, 97, 0, Level::Ok, "7 of 97 are left by the role's limit"),
        (6, 97, 0, Level::Warn, "6 of 97"),
        (80, 90, 3, Level::Ok, "3 live workers up to 21"),
        (20, 20, 3, Level::Warn, "20 of 20"),
    ] {
        let limit = ConnectionLimit {
            name: "the role's limit".into(),
            available,
            most,
            alive_workers,
        };
        assert_finding(&server::connections(&limit, 7), level, phrase);
    }
}

#[test]
fn a_problem_warns_with_its_statement_and_fails_if_inserts_fail() {
    let check = &SCHEMA_CHECKS[0];
    let problem = |statement: Option<&str>, fails| Problem {
        found: "ids up to 90".into(),
        statement: statement.map(str::to_owned),
        fails,
    };
    let statement = Some("select setval(1)");
    let judge = |found: &[Problem]| problems(check, found);
    assert_finding(&judge(&[]), Level::Ok, check.ok);
    assert_finding(&judge(&[problem(None, false)]), Level::Warn, "ids up to 90");
    let mixed = [problem(statement, false), problem(None, true)];
    assert_finding(&judge(&mixed), Level::Fail, "run select setval(1);");
}

fn lane_of(change: impl FnOnce(&mut LaneStatus)) -> Vec<AppStatus> {
    let mut lane = LaneStatus::sending();
    change(&mut lane);
    vec![AppStatus {
        app: "default".into(),
        lane: Some(lane),
        pending: Pending {
            queued: 40,
            scheduled: 2,
            ..Pending::default()
        },
        ..AppStatus::default()
    }]
}

#[test]
fn a_lane_that_does_not_send_is_found_with_the_obstacle() {
    let obstacle = |kind| Obstacle {
        kind,
        sentence: "the app is paused by ann".into(),
    };
    let judge = |lanes: &[AppStatus]| lane::lane("default", 500.0, None, lanes);
    for (kind, level, phrase) in [
        (LaneState::Paused, Level::Warn, "paused by ann"),
        (LaneState::Paused, Level::Warn, "run `worker resume`"),
        (
            LaneState::Unauthorized,
            Level::Warn,
            "the app's credentials",
        ),
        (LaneState::Unavailable, Level::Warn, "wait: sending resumes"),
        (LaneState::NoWorker, Level::Ok, "at most 500 calls/s"),
    ] {
        let lanes = lane_of(|lane| lane.obstacles = vec![obstacle(kind)]);
        assert_finding(&judge(&lanes), level, phrase);
    }
    let other_limit = lane_of(|lane| lane.configured_per_s = 200.0);
    assert_finding(&judge(&other_limit), Level::Warn, "200 calls/s");
    let throttled = lane_of(|lane| lane.rate_per_s = 50.0);
    assert_finding(&judge(&throttled), Level::Warn, "throttled to 50 calls/s");
    assert_finding(&judge(&[]), Level::Ok, "no worker");
}

#[test]
fn a_lane_of_another_environment_fails_with_its_messages_and_advice() {
    for (of_lane, own, level, phrase) in [
        (Some("a"), Some("a"), Level::Ok, "sends"),
        (None, Some("a"), Level::Ok, "sends"),
        (None, None, Level::Ok, "sends"),
        (Some("prod"), Some("b"), Level::Fail, "42 were pending"),
        (
            Some("prod"),
            None,
            Level::Fail,
            "worker adopt default --cancel",
        ),
    ] {
        let lanes = lane_of(|lane| lane.environment = of_lane.map(str::to_owned));
        let finding = lane::lane("default", 500.0, own, &lanes);
        assert_finding(&finding, level, phrase);
    }
}
