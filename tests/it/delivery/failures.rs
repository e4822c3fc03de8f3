//! Failed attempts: their outcomes, and the fate of their messages.

use harness::{Attempt, Row, Worker, World, peer};
use serde_json::json;

/// Faults, each with the outcome of the attempt, whether the API accepts the message nevertheless, and whether the attempt
/// is charged while other messages are accepted.
const FAULTS: [(&str, &str, bool, bool); 13] = [
    ("302", "transient", false, false),
    ("404", "transient", false, false),
    ("408", "ambiguous", false, true),
    ("500", "transient", false, true),
    ("502", "ambiguous", false, true),
    ("503", "ambiguous", false, true),
    ("504", "ambiguous", false, true),
    ("507", "ambiguous", false, true),
    ("drop", "ambiguous", true, true),
    ("drop_before", "ambiguous", false, true),
    ("hang", "ambiguous", true, true),
    ("garbage", "ambiguous", true, true),
    ("half_body", "ambiguous", true, true),
];

/// A worker with a short request timeout.
fn impatient(world: &World) -> Worker {
    world.worker().env("WORKER_REQUEST_TIMEOUT", "1500ms")
}

fn destination(prefix: &str, fault: &str) -> String {
    format!("{prefix}-{}-x", fault.replace('_', "-"))
}

fn set_faults(world: &World, prefix: &str, condition: &str) {
    let rules = FAULTS.map(|(fault, ..)| {
        let destination = destination(prefix, fault);
        format!("{fault}:destination={destination}{condition}")
    });
    world.set_faults(&rules.each_ref().map(String::as_str));
}

/// Delivers a message that meets a fault. The worker charges its attempts because the API has accepted a message before.
async fn deliver(
    world: &World,
    prefix: &str,
    fault: &str,
    mut columns: serde_json::Value,
) -> (i64, Row) {
    let to = destination(prefix, fault);
    columns["destination"] = json!(to);
    columns["payload"] = json!(to);
    world.deliver(json!({"payload": "fine"})).await;
    world.deliver(columns).await
}

#[tokio::test]
async fn a_failed_attempt_is_retried() {
    let world = World::new().await;
    set_faults(&world, "flaky", ",first_calls=1");
    let _worker = impatient(&world).start();
    for (fault, outcome, is_taken, is_charged) in FAULTS {
        let (id, row) = deliver(&world, "flaky", fault, json!({})).await;
        let charged = i32::from(is_charged);
        let expected = ("message_sent", charged + 1, 1 - charged);
        assert_eq!(ending(&row), expected, "{fault}: {row:?}");
        assert_eq!((row.http_status, row.error), (Some(200), None), "{fault}");
        let attempts = world.attempts(id).await;
        assert_eq!(outcomes(&attempts), [(1, outcome)], "{fault}");
        assert!(attempts[0].error.is_some(), "{fault}");
        let calls = world.calls_of(&destination("flaky", fault));
        let accepted: Vec<_> = calls.iter().map(|call| call.accepted).collect();
        assert_eq!(accepted, [is_taken, true], "{fault}");
    }
}

#[tokio::test]
async fn a_message_that_always_fails_beside_others_ends_after_max_attempts() {
    let world = World::new().await;
    set_faults(&world, "never", "");
    let _worker = impatient(&world).start();
    for (fault, outcome, ..) in FAULTS.into_iter().filter(|(.., is_charged)| *is_charged) {
        let (id, row) = deliver(&world, "never", fault, json!({"max_attempts": 2})).await;
        assert_eq!(ending(&row), ("failed", 2, 0), "{fault}: {row:?}");
        assert!(row.error.is_some(), "{fault}: the row says why");
        let attempts = world.attempts(id).await;
        for attempt in &attempts {
            assert_eq!(attempt.fault.as_deref(), Some("message"), "{fault}");
            let evidence = attempt.evidence.as_deref().expect("evidence");
            assert!(evidence.contains("has accepted"), "{fault}: {evidence}");
        }
        assert_eq!(outcomes(&attempts), [(1, outcome), (2, outcome)], "{fault}");
        let calls = world.calls_of(&destination("never", fault));
        assert_eq!(calls.len(), 2, "{fault}");
    }
}

#[tokio::test]
async fn a_call_that_did_not_reach_the_api_is_uncharged_until_the_worker_gives_up() {
    let world = World::new().await;
    set_faults(&world, "never", "");
    let _worker = world.worker().env("WORKER_GIVE_UP_AFTER", "2s").start();
    for (fault, ..) in FAULTS.into_iter().filter(|(.., is_charged)| !is_charged) {
        let (id, row) = deliver(&world, "never", fault, json!({"max_attempts": 1})).await;
        assert_eq!((&*row.status, row.attempts), ("failed", 0), "{fault}");
        let since = row.failing_since.expect("it has failed");
        let failing_for = row.finished_at.expect("final") - since;
        assert!(failing_for >= time::Duration::seconds(2), "{failing_for}");
        let attempts = world.attempts(id).await;
        assert!(attempts.len() > 2, "{fault}: {attempts:?}");
        let uncharged = usize::try_from(row.uncharged);
        assert_eq!(uncharged, Ok(attempts.len()), "{fault}");
    }
}

#[tokio::test]
async fn an_at_most_once_message_is_not_sent_again_after_an_ambiguous_attempt() {
    let world = World::new().await;
    set_faults(&world, "once", ",first_calls=1");
    let _worker = impatient(&world).start();
    for (fault, outcome, _, is_charged) in FAULTS {
        let (_, row) = deliver(&world, "once", fault, json!({"at_most_once": true})).await;
        let calls = world.calls_of(&destination("once", fault));
        if outcome == "ambiguous" {
            assert_eq!(ending(&row), ("unknown", 1, 0), "{fault}: {row:?}");
            assert_eq!(calls.len(), 1, "{fault}: {calls:?}");
            assert!(row.error.is_some(), "{fault}");
        } else {
            // The API rejected the call, so a retry can't repeat an effect.
            let charged = i32::from(is_charged);
            let expected = ("message_sent", charged + 1, 1 - charged);
            assert_eq!(ending(&row), expected, "{fault}: {row:?}");
            let accepted = calls.iter().filter(|call| call.accepted).count();
            assert_eq!((calls.len(), accepted), (2, 1), "{fault}");
        }
    }
}

fn ending(row: &Row) -> (&str, i32, i32) {
    (&row.status, row.attempts, row.uncharged)
}

fn outcomes(attempts: &[Attempt]) -> Vec<(i32, &str)> {
    attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.outcome.as_str()))
        .collect()
}

#[tokio::test]
async fn a_refused_connection_costs_no_attempt_and_is_retried_until_the_api_is_back() {
    let mut world = World::new().await;
    world.simulator.stop().await;
    let id = world.insert(peer(json!({"max_attempts": 1}))).await;
    let at_most_once = json!({"max_attempts": 1, "at_most_once": true});
    let careful = world.insert(peer(at_most_once)).await;
    let worker = world.worker().start();
    worker.until_logged("lane_held").await;
    world.until_count(2, "uncharged > 0 and attempts = 0").await;
    let row = world.row(id).await;
    assert_eq!((row.status.as_str(), row.http_status), ("pending", None));
    let error = row.error.expect("an error");
    assert!(error.contains("could not be reached"), "{error}");

    world.restart_api().await;
    for id in [id, careful] {
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
        for attempt in world.attempts(id).await {
            assert_eq!(attempt.outcome, "transient");
        }
    }
    assert_eq!(world.seen().calls, 2);
}

#[tokio::test]
async fn a_429_costs_no_attempt_and_its_retry_after_is_honoured() {
    let world = World::new().await;
    world.set_faults(&[
        "429:first_calls=2,destination=limited,retry_after=1",
        "429:first_calls=1",
    ]);
    let message = json!({"destination": "limited", "max_attempts": 1, "payload": "limited"});
    let limited = world.insert(peer(message)).await;
    let message = json!({"max_attempts": 1, "at_most_once": true, "payload": "soon"});
    let soon = world.insert(peer(message)).await;
    let _worker = world.worker().start();

    for id in [soon, limited] {
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    }
    let attempts = world.attempts(limited).await;
    assert_eq!(outcomes(&attempts), [(1, "throttled"), (2, "throttled")]);
    for attempt in attempts {
        assert_eq!(attempt.http_status, Some(429));
    }

    let calls = world.calls_of("limited");
    assert_eq!(calls.len(), 3);
    for pair in calls.windows(2) {
        let pause_us = pair[1].at_us - pair[0].at_us;
        // The clocks of the database and of the simulator drift apart a little.
        assert!(pause_us >= 980_000, "called again after {pause_us} µs");
    }
}
