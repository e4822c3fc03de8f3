//! `worker message`

use serde_json::{Value, json};

use crate::schema::roles::Role;
use harness::{Worker, World, assert_contains, channel, peer};

fn message(world: &World, id: i64) -> Worker {
    world.command(&["message", &id.to_string()])
}

async fn text(world: &World, id: i64) -> String {
    message(world, id).succeeds().await
}

async fn as_json(worker: Worker) -> Value {
    let text = worker.arg("--json").succeeds().await;
    serde_json::from_str(&text).expect("JSON")
}

fn assert_in_order(text: &str, phrases: &[&str]) {
    let mut rest = text;
    for phrase in phrases {
        rest = rest
            .split_once(phrase)
            .unwrap_or_else(|| panic!("{phrase:?} is missing, or too early: {text}"))
            .1;
    }
}

#[tokio::test]
async fn message_shows_the_whole_history_without_the_payload() {
    let world = World::new().await;
    world.set_faults(&[
        "500:destination=once,first_calls=1",
        "400:destination=never",
    ]);
    let payload = "nobody else's business";
    let sent = world
        .insert(peer(json!({"destination": "once", "payload": payload})))
        .await;
    let failed = world.insert(peer(json!({"destination": "never"}))).await;
    let mut worker = world.worker().env("WORKER_NAME", "the-worker").start();
    world.until_all_final().await;
    worker.stop().await;

    let shown = text(&world, sent).await;
    assert_in_order(
        &shown,
        &[
            &format!("message {sent} of app default: message_sent"),
            "alice",
            "once",
            "--payload shows it",
            "1 of 10, and 1 not charged",
            "inserted",
            "call 1: transient, HTTP 500 after",
            "by the-worker",
            "fault: not clear (few or no messages were accepted",
            "not charged",
            "call 2: accepted, HTTP 200",
            "by the-worker",
            "message_sent",
            "next: nothing",
        ],
    );
    assert!(!shown.contains(payload), "{shown}");
    assert_in_order(
        &text(&world, failed).await,
        &[
            "call 1: rejected, HTTP 400",
            "fault: the message or its destination (the API rejects the message); charged",
            "failed: HTTP 400",
            &format!("worker retry --status failed --id {failed}"),
            "why:  call 1 failed. fault: the message",
            "-> check the message",
        ],
    );

    let detail = as_json(message(&world, sent)).await;
    assert_eq!(detail["status"], "message_sent");
    assert!(detail.get("payload").is_none(), "{detail}");
    let calls = detail["calls"].as_array().expect("an array");
    assert_eq!(calls.len(), 1, "{detail}");
    assert_eq!(calls[0]["outcome"], "transient");
    assert_eq!(calls[0]["http_status"], 500);
    assert_eq!(calls[0]["fault"], "unclear");
    assert_eq!(calls[0]["charged"], false);
    assert!(calls[0]["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0));
    let shown = as_json(message(&world, sent).arg("--payload")).await;
    assert_eq!(shown["payload"], payload);
}

#[tokio::test]
async fn message_shows_the_next_step_and_its_obstacle() {
    let world = World::new().await;
    let queued = world.insert(channel(json!({}))).await;
    let later = json!({"due_at": "2100-01-01T00:00:00Z"});
    let scheduled = world.insert(peer(later)).await;
    let sending = world.insert(peer(json!({}))).await;
    let lost = world.insert(peer(json!({}))).await;
    for (id, due) in [
        (sending, "+ interval '1 hour'"),
        (lost, "- interval '1 minute'"),
    ] {
        world
            .set_messages(&format!(
                "claim_id = gen_random_uuid(), claimed_by = 'some-worker', due_at = clock_timestamp() {due} where id = {id}"
            ))
            .await;
    }
    let assert_next = async |id, phrase: &str| {
        let text = text(&world, id).await;
        let (_, next) = text.split_once("next: ").expect("a next step");
        assert_contains(next, &[phrase]);
    };
    assert_next(queued, "no worker has served the app").await;
    world.open_lane("default").await;
    let phrase = "but no worker that serves the app is alive: start a worker";
    assert_next(queued, phrase).await;
    world.pretend_worker("the-worker", "1", "default").await;
    for (id, phrase) in [
        (queued, "the message is due, and waits for a free slot\n"),
        (scheduled, "first call is due at 2100-01-01T00:00:00Z"),
        (sending, "some-worker has claimed the message"),
        (
            lost,
            "some-worker recorded no outcome before its lease ended",
        ),
    ] {
        assert_next(id, phrase).await;
    }
    let pause = "paused_at = now(), paused_by = 'olga', pause_reason = 'moving house'";
    world.set_lane(pause).await;
    assert_next(queued, "paused by olga").await;
    let detail = as_json(message(&world, queued)).await;
    assert_eq!(detail["lane"]["pause_reason"], "moving house");
    assert_eq!(detail["waits_for"], "an operator: olga has paused the app");
}

#[tokio::test]
async fn message_shows_the_fault_of_a_failure_and_advice() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("worker-7", "1", "default").await;
    let later = json!({"due_at": "2100-01-01T00:00:00Z"});
    let id = world.insert(peer(later)).await;
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, sent_at, outcome, error, evidence, claimed_by)
             values ({id}, 1, now(), 'transient', 'HTTP 503', 'the evidence', 'worker-7')"
        ))
        .await;
    for (fault, charged, shown, advice) in [
        (
            "message",
            true,
            "fault: the message or its destination",
            "accepts messages to other destinations",
        ),
        ("destination", true, "fault: the destination", "send less"),
        (
            "worker",
            false,
            "fault: the worker worker-7",
            "credentials and its network",
        ),
        ("api", false, "fault: the API", "-> wait"),
        (
            "budget",
            false,
            "fault: the app's budget of calls",
            "WORKER_RATE",
        ),
        ("unclear", false, "fault: not clear", "WORKER_GIVE_UP_AFTER"),
    ] {
        world
            .execute(&format!(
                "update signaling.outbox set sent_at = now(), attempts = {charged}::int, uncharged = 1 - {charged}::int;
                 update signaling.attempt set fault = '{fault}', charged = {charged}"
            ))
            .await;
        let (attempts, cost) = if charged {
            ("1 of 10\n", "; charged")
        } else {
            ("0 of 10, and 1 not charged\n", "; not charged")
        };
        assert_in_order(
            &text(&world, id).await,
            &[
                attempts,
                "call 1: transient",
                shown,
                "(the evidence)",
                cost,
                "next: the next call is due at 2100-01-01",
                "why:  call 1 failed",
                advice,
            ],
        );
    }
}

#[tokio::test]
async fn message_shows_a_lost_claim_as_a_call() {
    let world = World::new().await;
    let id = world.insert(peer(json!({"at_most_once": true}))).await;
    world
        .set_messages(
            "claim_id = gen_random_uuid(), claimed_by = 'dead-worker', due_at = clock_timestamp() - interval '1 minute'",
        )
        .await;
    let mut worker = world.worker().start();
    world.until_final(id).await;
    worker.stop().await;
    assert_in_order(
        &text(&world, id).await,
        &[
            "at most once",
            "lost, and perhaps never made, by dead-worker",
            "unknown: ",
            "worker retry --status unknown",
        ],
    );
}

#[tokio::test]
async fn a_missing_message_is_an_error() {
    let world = World::new().await;
    let missing = message(&world, 17);
    let finished = missing.fails(1, &["there is no message 17"]).await;
    assert_eq!(finished.stdout, "");
}

#[tokio::test]
async fn a_role_without_the_right_to_payloads_sees_the_rest() {
    let mut world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("the-worker", "1", "default").await;
    let secret = json!({"payload": "secret thoughts"});
    let id = world.insert(peer(secret)).await;
    let reader = Role::granted(&world, "reader").await;
    let grant = format!("grant select on signaling.outbox to {}", reader.name);

    world.url = reader.url;
    let shown = text(&world, id).await;
    assert_contains(&shown, &["waits for a free slot\n"]);
    let with_payload = || message(&world, id).arg("--payload");
    let phrases = ["may not read payloads", "grant producer"];
    with_payload().fails(1, &phrases).await;

    world.execute(&grant).await;
    let shown = with_payload().succeeds().await;
    assert_contains(&shown, &["secret thoughts"]);
}

#[tokio::test]
async fn a_payload_is_shown_with_its_control_characters_escaped() {
    let world = World::new().await;
    let payload = json!({"payload": "\u{1b}[2Jgrüße\nnext: everything"});
    let id = world.insert(peer(payload)).await;
    let shown = message(&world, id).arg("--payload").succeeds().await;
    assert_contains(&shown, &["\\u{1b}[2Jgrüße\\nnext: everything"]);
    assert!(!shown.contains('\u{1b}'), "{shown}");
}
