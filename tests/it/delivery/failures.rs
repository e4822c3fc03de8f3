//! Calls that go wrong, and what they mean for their messages.

use serde_json::json;
use simulator::{Simulator, SimulatorConfig};

use testkit::{API_KEY, API_SECRET, Attempt, PATIENCE, Row, Worker, World, basic, peer};

/// Faults, with the outcome of the attempt, whether the API takes the message all the same, and whether the attempt is
/// charged while other messages are accepted.
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

/// A worker that does not wait long for a call that hangs.
fn impatient(world: &World) -> Worker {
    world.worker().env("WORKER_REQUEST_TIMEOUT", "1500ms")
}

fn destination(prefix: &str, fault: &str) -> String {
    format!("{prefix}-{}-x", fault.replace('_', "-"))
}

fn set_faults(world: &World, prefix: &str, condition: &str) {
    let rules: Vec<String> = FAULTS
        .iter()
        .map(|(fault, ..)| {
            format!(
                "{fault}:destination={}{condition}",
                destination(prefix, fault)
            )
        })
        .collect();
    world.set_faults(&rules.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Delivers a message that meets a fault, after a fine one: an API whose every call fails would be down, which is another
/// matter.
async fn deliver(
    world: &World,
    prefix: &str,
    fault: &str,
    columns: serde_json::Value,
) -> (i64, Row) {
    let to = destination(prefix, fault);
    let mut message = peer(columns);
    message["destination"] = json!(to);
    message["payload"] = json!(to);
    let fine = world.insert(peer(json!({"payload": "fine"}))).await;
    world.until_final(fine).await;
    let id = world.insert(message).await;
    let row = world.until_final(id).await;
    (id, row)
}

#[tokio::test]
async fn a_call_that_may_go_well_another_time_is_made_again() {
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
async fn a_call_that_never_goes_well_is_made_max_attempts_times_while_others_go_well() {
    let world = World::new().await;
    set_faults(&world, "never", "");
    let _worker = impatient(&world).start();
    for (fault, outcome, _, is_charged) in FAULTS {
        if !is_charged {
            continue;
        }
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
    for (fault, _, _, is_charged) in FAULTS {
        if is_charged {
            continue;
        }
        let (id, row) = deliver(&world, "never", fault, json!({"max_attempts": 1})).await;
        assert_eq!((&*row.status, row.attempts), ("failed", 0), "{fault}");
        let since = row.failing_since.expect("it has failed");
        let failing_for = row.finished_at.expect("final") - since;
        assert!(failing_for >= time::Duration::seconds(2), "{failing_for}");
        let attempts = world.attempts(id).await;
        assert!(attempts.len() > 2, "{fault}: {attempts:?}");
        assert_eq!(
            usize::try_from(row.uncharged),
            Ok(attempts.len()),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn a_lone_message_that_always_fails_ends_uncharged_when_the_worker_gives_up() {
    let world = World::new().await;
    world.set_faults(&["500"]);
    let id = world.insert(peer(json!({"max_attempts": 1}))).await;
    let _worker = world.worker().env("WORKER_GIVE_UP_AFTER", "2s").start();
    let row = world.until_final(id).await;
    assert_eq!((&*row.status, row.attempts), ("failed", 0));
    assert!(row.error.expect("an error").contains("500"));
    let failing_for = row.finished_at.expect("final") - row.failing_since.expect("failed");
    assert!(failing_for >= time::Duration::seconds(2), "{failing_for}");
    let attempts = world.attempts(id).await;
    assert_eq!(attempts.len() as u64, world.seen().calls);
    assert_eq!(attempts[0].fault.as_deref(), Some("unclear"));
    assert!(attempts.iter().all(|attempt| !attempt.charged));
}

#[tokio::test]
async fn an_at_most_once_message_is_never_called_again_after_a_call_of_unknown_outcome() {
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
            // The API says that nothing has happened: it is called again without a risk.
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
    // Not from the range of outgoing connections, one of which might take the port meanwhile.
    let port = (12_000..20_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port");
    let at_port = || SimulatorConfig {
        bind: ([127, 0, 0, 1], port).into(),
        ..SimulatorConfig::default()
    };
    let mut world = World::with(at_port()).await;
    world.simulator.stop().await;
    let id = world.insert(peer(json!({"max_attempts": 1}))).await;
    let careful = world
        .insert(peer(json!({"max_attempts": 1, "at_most_once": true})))
        .await;
    let worker = world.worker().start();

    worker.until_logged("lane_held").await;
    world
        .until("both were tried", PATIENCE, async || {
            world.count("uncharged > 0 and attempts = 0").await == 2
        })
        .await;
    let row = world.row(id).await;
    assert_eq!((row.status.as_str(), row.http_status), ("pending", None));
    let error = row.error.expect("an error");
    assert!(error.contains("could not be reached"), "{error}");

    let config = SimulatorConfig {
        behaviour: simulator::Behaviour {
            credentials: basic(API_KEY, API_SECRET),
            ..Default::default()
        },
        ..at_port()
    };
    world.simulator = Simulator::start(config).await.expect("it is back");
    for id in [id, careful] {
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
        assert!(
            world
                .attempts(id)
                .await
                .iter()
                .all(|attempt| attempt.outcome == "transient")
        );
    }
    assert_eq!(world.seen().calls, 2);
}

#[tokio::test]
async fn a_429_costs_no_attempt_and_its_retry_after_is_honoured() {
    let world = World::new().await;
    world.set_faults(&[
        "429:retry_after=1,first_calls=2,destination=limited",
        "429:first_calls=1",
    ]);
    let limited = world
        .insert(peer(
            json!({"destination": "limited", "max_attempts": 1, "payload": "limited"}),
        ))
        .await;
    let soon = world
        .insert(peer(
            json!({"max_attempts": 1, "at_most_once": true, "payload": "soon"}),
        ))
        .await;
    let _worker = world.worker().start();

    world
        .until("the first call is recorded", PATIENCE, async || {
            !world.attempts(limited).await.is_empty()
        })
        .await;
    assert_eq!(world.row(limited).await.attempts, 0);
    let row = world.until_final(soon).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    let row = world.until_final(limited).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    let attempts = world.attempts(limited).await;
    let said: Vec<_> = attempts
        .iter()
        .map(|a| (a.number, a.outcome.as_str(), a.http_status))
        .collect();
    assert_eq!(
        said,
        [(1, "throttled", Some(429)), (2, "throttled", Some(429))]
    );

    let at_us: Vec<u64> = world
        .calls_of("limited")
        .iter()
        .map(|call| call.at_us)
        .collect();
    assert_eq!(at_us.len(), 3);
    for pause_us in at_us.windows(2).map(|pair| pair[1] - pair[0]) {
        // The database's clock and the simulator's may drift apart by a little.
        assert!(pause_us >= 980_000, "called again after {pause_us} µs");
    }
}
