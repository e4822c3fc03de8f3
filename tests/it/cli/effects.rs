//! Commands report the change that they made, and the obstacles that still keep the app or the message.

use serde_json::json;

use harness::{World, assert_contains, peer};

const PAUSED: &str = "the app is paused by olga since 2030-01-31T12:00:00Z: moving house";
const UNAUTHORIZED: &str = "the app is unauthorized since 2030-01-31T12:00:00Z, because the API refuses its credentials (HTTP 401): correct them";
const RETRY_AFTER: &str = "the app makes no call before 2100-01-31T12:00:00Z, as the API asked; `worker resume default` ends the wait";
const NO_WORKER: &str = "no worker that serves the app is alive: start a worker";

const NO_CHANGE: &str = "rate_at = rate_at";
const PAUSE: &str =
    "paused_at = '2030-01-31T12:00Z', paused_by = 'olga', pause_reason = 'moving house'";
const HOLD: &str = "hold = 'unauthorized', hold_reason = 'HTTP 401', hold_since = '2030-01-31T12:00Z', hold_until = now()";
const WAIT: &str = "retry_after_until = '2100-01-31T12:00Z'";

/// The states of an app before a command: a change of its lane, and the obstacle.
const STATES: [(&str, Option<&str>); 5] = [
    (NO_CHANGE, None),
    (PAUSE, Some(PAUSED)),
    (HOLD, Some(UNAUTHORIZED)),
    (WAIT, Some(RETRY_AFTER)),
    (NO_CHANGE, Some(NO_WORKER)),
];

/// Replaces the app by one in this state, without messages.
async fn replace_app(world: &World, change: &str, obstacle: Option<&str>) {
    world
        .execute("delete from signaling.lane; delete from signaling.worker; delete from signaling.outbox")
        .await;
    world.open_lane("default").await;
    world.set_lane(change).await;
    if obstacle != Some(NO_WORKER) {
        world.pretend_worker("a-worker", "1", "default").await;
    }
}

/// Asserts the start of the first line, and that the only line after it is about this obstacle.
fn assert_report(report: &str, first: &str, obstacle: Option<&str>) {
    let (line, rest) = report.split_once('\n').expect("a line");
    assert!(line.starts_with(first), "{first:?}: {report}");
    if let Some(sentence) = obstacle {
        let but = format!("  but {sentence}");
        assert!(rest.starts_with(&but), "{sentence:?}: {report}");
    }
    let lines = usize::from(obstacle.is_some());
    assert_eq!(rest.lines().count(), lines, "{report}");
}

#[tokio::test]
async fn pause_prints_other_obstacles_and_an_earlier_pause() {
    let world = World::new().await;
    for (change, obstacle) in STATES {
        replace_app(&world, change, obstacle).await;
        let first = if obstacle == Some(PAUSED) {
            "default was paused already"
        } else {
            "default is paused: no call starts until `worker resume default`, and the workers finish calls in flight"
        };
        let report = world.run(&["pause", "default"]).await;
        assert_report(&report, first, obstacle);
    }
}

/// schema/protocol/resume.rs tests the sentences of the other states.
#[tokio::test]
async fn resume_prints_what_it_ended_and_remaining_obstacles() {
    let world = World::new().await;
    let nothing = "nothing changed: the app was not paused, and the API has asked for no wait";
    for (change, sentence) in [
        (PAUSE, "resumed\n"),
        (HOLD, &format!("{nothing}; but {UNAUTHORIZED}")),
    ] {
        replace_app(&world, change, None).await;
        let report = world.run(&["resume", "default"]).await;
        let expected = format!("default: {sentence}");
        assert!(report.starts_with(&expected), "{report}");
    }
}

#[tokio::test]
async fn limit_prints_the_limit_and_remaining_obstacles() {
    let world = World::new().await;
    let limit = ["limit", "default", "50"];
    for (change, obstacle) in STATES {
        replace_app(&world, change, obstacle).await;
        for first in [
            "default makes at most 50 calls/s now",
            "default makes at most 50 calls/s already",
        ] {
            assert_report(&world.run(&limit).await, first, obstacle);
        }
    }
    replace_app(&world, NO_CHANGE, None).await;
    world
        .set_lane("rate_per_s = 10, rate_at = clock_timestamp()")
        .await;
    let report = world.run(&limit).await;
    assert_contains(&report, &["\n  but a 429 has throttled it to 1"]);
}

#[tokio::test]
async fn retry_prints_the_count_and_remaining_obstacles() {
    let world = World::new().await;
    for (change, obstacle) in STATES {
        replace_app(&world, change, obstacle).await;
        world.insert_failed("default").await;
        world.insert_failed("default").await;
        let report = world.run(&["retry", "--all"]).await;
        let first = "2 messages of default are due again";
        assert_report(&report, first, obstacle);
        let report = world.run(&["retry", "--all"]).await;
        assert_report(&report, "no message is due again: none matches", None);
    }
    replace_app(&world, PAUSE, Some(PAUSED)).await;
    let pending = world.insert(peer(json!({}))).await.to_string();
    let failed = world.insert_failed("default").await.to_string();
    let retry = ["retry", "--id", &pending, "--id", &failed];
    let report = world.run(&retry).await;
    let (first, rest) = report.split_once('\n').expect("lines");
    assert_eq!(first, format!("{pending} is not sent again: it is queued"));
    assert_report(rest, "1 message of default is due again", Some(PAUSED));
    assert_contains(rest, &["; `worker resume default` ends the pause"]);
}

#[tokio::test]
async fn cancel_prints_each_messages_state_and_may_be_repeated() {
    let world = World::new().await;
    for (change, obstacle) in STATES {
        replace_app(&world, change, obstacle).await;
        let id = world.insert(peer(json!({}))).await.to_string();
        for report in ["is cancelled: it was never sent", "was cancelled already"] {
            let printed = world.run(&["cancel", &id]).await;
            assert_eq!(printed, format!("{id} {report}\n"));
        }
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
        let cancel = world.command(&["cancel", &id.to_string()]);
        let finished = cancel.fails(1, &[]).await;
        let report = format!("{id} is not cancelled: {phrase}");
        assert!(finished.stdout.starts_with(&report), "{finished:?}");
    }
    // A retry by hand takes the attempts back, but not the call.
    let failed = format!(
        "update signaling.outbox set status = 'failed', finished_at = now() where id = {sent};
         select signaling.retry('default', ids => array[{sent}])"
    );
    world.execute(&failed).await;
    let printed = world.run(&["cancel", &sent.to_string()]).await;
    assert_contains(&printed, &["An earlier call may have arrived"]);
}

#[tokio::test]
async fn commands_warn_of_an_app_that_no_worker_has_served() {
    let world = World::new().await;
    world.insert_failed("default").await;
    let report = world.run(&["retry", "--app", "default"]).await;
    let obstacle = "no worker has served the app yet: start a worker";
    assert_report(&report, "1 message of default is due again", Some(obstacle));
    for arguments in [
        &["pause", "default"][..],
        &["resume", "default"],
        &["limit", "default", "5"],
    ] {
        let command = world.command(arguments);
        command.fails(1, &["no worker has been started yet"]).await;
    }
}

#[tokio::test]
async fn every_command_refuses_an_unknown_app() {
    let world = World::new().await;
    world.open_lane("shop").await;
    for arguments in [
        &["retry", "--app", "nosuch"][..],
        &["retry", "--app", "nosuch", "--dry-run"],
        &["pause", "nosuch"],
        &["resume", "nosuch"],
        &["limit", "nosuch", "5"],
        &["adopt", "nosuch", "--environment=tests", "--send-pending"],
    ] {
        let command = world.command(arguments);
        let phrase = "there is no app 'nosuch' (the apps are: shop)";
        command.fails(1, &[phrase]).await;
    }
    // Apps with a lane or with messages exist, also if nothing matches.
    world.insert_failed("new").await;
    for app in ["shop", "new"] {
        let retry = ["retry", "--app", app, "--status", "unknown"];
        world.run(&retry).await;
    }
}

#[tokio::test]
async fn retry_names_messages_that_do_not_exist() {
    let world = World::new().await;
    let failed = world.insert_failed("default").await.to_string();
    let retry = || world.command(&["retry", "--id", &failed, "--id", "4711"]);
    for retry in [retry().arg("--dry-run"), retry()] {
        let finished = retry.fails(1, &["--id names exist"]).await;
        let missing = "4711 is not sent again: there is no such message\n1 message ";
        assert!(finished.stdout.starts_with(missing), "{finished:?}");
    }
    assert_eq!(world.count("status = 'pending'").await, 1);
}
