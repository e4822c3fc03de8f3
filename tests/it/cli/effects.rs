//! Commands report the change that they made, and the obstacles that still keep the app or the message.

use serde_json::json;

use testkit::{Finished, World, assert_contains, peer};

const RESUME: &str = "; `worker resume default` ends the pause";
const PAUSED: &str = "the app is paused by olga since 2030-01-31T12:00:00Z: moving house";
const UNAUTHORIZED: &str = "the app is unauthorized since 2030-01-31T12:00:00Z, because the API refuses its credentials (HTTP 401): correct them";
const RETRY_AFTER: &str = "the app makes no call before 2100-01-31T12:00:00Z, as the API asked; `worker resume default` ends the wait";
const NO_WORKER: &str = "no worker that serves the app is alive: start a worker";

/// The obstacle that keeps the app from sending before a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Unauthorized,
    RetryAfter,
    NoWorker,
}

impl State {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::Unauthorized,
        Self::RetryAfter,
        Self::NoWorker,
    ];

    /// The sentence about it; none while the app sends.
    fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Running => None,
            Self::Paused => Some(PAUSED),
            Self::Unauthorized => Some(UNAUTHORIZED),
            Self::RetryAfter => Some(RETRY_AFTER),
            Self::NoWorker => Some(NO_WORKER),
        }
    }

    async fn set(self, world: &World) {
        let change = match self {
            Self::Running | Self::NoWorker => "",
            Self::Paused => {
                "update signaling.lane set paused_at = '2030-01-31T12:00Z', paused_by = 'olga', pause_reason = 'moving house';"
            }
            Self::Unauthorized => {
                "update signaling.lane set hold = 'unauthorized', hold_reason = 'HTTP 401', hold_since = '2030-01-31T12:00Z', hold_until = now();"
            }
            Self::RetryAfter => {
                "update signaling.lane set retry_after_until = '2100-01-31T12:00Z';"
            }
        };
        world
            .execute(&format!(
                "delete from signaling.lane; delete from signaling.worker; delete from signaling.outbox;
                 insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
                 values ('default', 100, 100, signaling.slot_rate(100));
                 {change}"
            ))
            .await;
        if self != Self::NoWorker {
            world.pretend_worker("a-worker", "1", "default").await;
        }
    }
}

async fn run(world: &World, arguments: &[&str]) -> Finished {
    world.command(arguments).env("USER", "olga").finish().await
}

/// The output of a command that succeeds.
async fn done(world: &World, arguments: &[&str]) -> String {
    let finished = run(world, arguments).await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

async fn failed_message(world: &World) -> i64 {
    let id = world.insert(peer(json!({}))).await;
    world
        .set_messages(&format!(
            "status = 'failed', attempts = 1, finished_at = now() where id = {id}"
        ))
        .await;
    id
}

/// Checks the first line, and that the lines after it are about this state.
fn assert_said(said: &str, first: &str, obstacle: Option<&str>) {
    let (line, rest) = said.split_once('\n').expect("a line");
    assert!(line.starts_with(first), "{first:?}: {said}");
    match obstacle {
        None => assert_eq!(rest, "", "{said}"),
        Some(sentence) => {
            assert!(
                rest.starts_with(&format!("  but {sentence}")),
                "{sentence:?}: {said}"
            );
            assert_eq!(rest.lines().count(), 1, "{said}");
        }
    }
}

#[tokio::test]
async fn pause_prints_other_obstacles_and_an_earlier_pause() {
    let world = World::new().await;
    for state in State::ALL {
        state.set(&world).await;
        let said = done(&world, &["pause", "default"]).await;
        if state == State::Paused {
            assert_said(&said, "default was paused already", state.sentence());
        } else {
            let first = "default is paused: no call starts until `worker resume default`, and the workers finish calls in flight";
            assert_said(&said, first, state.sentence());
        }
    }
}

#[tokio::test]
async fn resume_prints_what_it_ended_and_remaining_obstacles() {
    let world = World::new().await;
    for state in State::ALL {
        state.set(&world).await;
        let said = done(&world, &["resume", "default"]).await;
        let nothing =
            "default: nothing changed: the app was not paused, and the API has asked for no wait";
        match state {
            State::Running => assert_eq!(said, format!("{nothing}\n")),
            State::Paused => assert_eq!(said, "default: resumed\n"),
            State::RetryAfter => {
                assert_eq!(said, "default: ended the wait that the API has asked for\n");
            }
            State::Unauthorized | State::NoWorker => {
                let still = state.sentence().expect("an obstacle");
                assert!(
                    said.starts_with(&format!("{nothing}; but {still}")),
                    "{said}"
                );
            }
        }
    }
}

#[tokio::test]
async fn limit_prints_the_limit_and_remaining_obstacles() {
    let world = World::new().await;
    for state in State::ALL {
        state.set(&world).await;
        let said = done(&world, &["limit", "default", "50"]).await;
        assert_said(
            &said,
            "default makes at most 50 calls/s now",
            state.sentence(),
        );
        let said = done(&world, &["limit", "default", "50"]).await;
        assert_said(
            &said,
            "default makes at most 50 calls/s already",
            state.sentence(),
        );
    }
    State::Running.set(&world).await;
    world
        .set_lane("rate_per_s = 10, rate_at = clock_timestamp()")
        .await;
    let said = done(&world, &["limit", "default", "50"]).await;
    assert!(said.contains("\n  but a 429 has slowed it to 1"), "{said}");
}

#[tokio::test]
async fn retry_prints_the_count_and_remaining_obstacles() {
    let world = World::new().await;
    for state in State::ALL {
        state.set(&world).await;
        failed_message(&world).await;
        failed_message(&world).await;
        let said = done(&world, &["retry", "--all"]).await;
        assert_said(
            &said,
            "2 messages of default are due again",
            state.sentence(),
        );
        let said = done(&world, &["retry", "--all"]).await;
        assert_said(&said, "no message is due again: none matches", None);
    }
    State::Paused.set(&world).await;
    let (pending, failed) = (
        world.insert(peer(json!({}))).await,
        failed_message(&world).await,
    );
    let ids = [pending.to_string(), failed.to_string()];
    let said = done(&world, &["retry", "--id", &ids[0], "--id", &ids[1]]).await;
    let (first, rest) = said.split_once('\n').expect("lines");
    assert_eq!(first, format!("{pending} is not sent again: it is queued"));
    assert_said(rest, "1 message of default is due again", Some(PAUSED));
    assert!(rest.contains(RESUME), "{rest}");
}

#[tokio::test]
async fn cancel_prints_each_messages_state_and_may_be_repeated() {
    let world = World::new().await;
    for state in State::ALL {
        state.set(&world).await;
        let id = world.insert(peer(json!({}))).await.to_string();
        let said = done(&world, &["cancel", &id]).await;
        assert_eq!(said, format!("{id} is cancelled: it was never sent\n"));
        let said = done(&world, &["cancel", &id]).await;
        assert_eq!(said, format!("{id} was cancelled already\n"));
    }
    let sent = world.insert(peer(json!({}))).await;
    let sending = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set status = 'message_sent', attempts = 1, sent_at = now(), finished_at = '2030-01-31T12:00Z'
             where id = {sent};
             update signaling.outbox set claim_id = gen_random_uuid(), claimed_by = 'worker-7', due_at = now() + interval '1 minute'
             where id = {sending}"
        ))
        .await;
    for (id, phrase) in [
        (sent, "its state is message_sent"),
        (sending, "its state is sending"),
        (4711, "there is no such message"),
    ] {
        let finished = run(&world, &["cancel", &id.to_string()]).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let said = format!("{id} is not cancelled: {phrase}");
        assert!(finished.stdout.starts_with(&said), "{finished:?}");
    }
}

#[tokio::test]
async fn commands_warn_of_an_app_that_no_worker_has_served() {
    let world = World::new().await;
    failed_message(&world).await;
    let said = done(&world, &["retry", "--app", "default"]).await;
    let served = "  but no worker has served the app yet: start a worker\n";
    assert_eq!(said, format!("1 message of default is due again\n{served}"));
    for arguments in [
        &["pause", "default"][..],
        &["resume", "default"],
        &["limit", "default", "5"],
    ] {
        let finished = run(&world, arguments).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_contains(&finished.stderr, &["no worker has been started yet"]);
    }
}

#[tokio::test]
async fn a_grant_may_be_repeated() {
    let world = World::new().await;
    let role = format!("effects_{}", std::process::id());
    world.execute(&format!("create role {role}")).await;
    for _ in 0..2 {
        let granted = done(&world, &["grant", "reader", &role]).await;
        let expected = format!("{role} has the rights of the kind reader");
        assert!(granted.starts_with(&expected), "{granted}");
    }
    world
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}
