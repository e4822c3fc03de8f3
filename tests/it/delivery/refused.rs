//! A database that refuses what a worker writes, through a trigger or a constraint of the application: one message keeps no
//! other from being sent, and is called no more often than `max_attempts`.

use serde_json::json;

use harness::{World, assert_contains, peer};

const MAX_ATTEMPTS: usize = 3;

/// Adds a trigger of an application that refuses changes of a table.
async fn refuse(world: &World, table: &str, event: &str, condition: &str) {
    world
        .execute(&format!(
            "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'not %', new using errcode = 'ZX001'; end $$;
             create trigger refuse before {event} on signaling.{table} for each row
             when ({condition}) execute function refuse()"
        ))
        .await;
}

async fn insert(world: &World, payload: &str) -> i64 {
    let message = json!({"payload": payload, "max_attempts": MAX_ATTEMPTS});
    world.insert(peer(message)).await
}

/// Ends the refusals, and makes the worker try the refused messages again.
async fn allow(world: &World) {
    world
        .execute("drop trigger refuse on signaling.outbox")
        .await;
    world.run(&["resume", "default"]).await;
}

#[tokio::test]
async fn a_message_whose_success_is_refused_is_called_no_more_than_max_attempts() {
    let world = World::new().await;
    let id = insert(&world, "poison").await;
    world.insert_many(20).await;
    let condition = "new.payload = 'poison' and new.status = 'message_sent'";
    refuse(&world, "outbox", "update", condition).await;
    let mut worker = world.worker().short_leases().start();
    let row = world.until_final(id).await;
    world.until_sent(20).await;
    worker.stop().await;
    assert_eq!((&*row.status, row.attempts), ("failed", 3));
    let calls = world.calls_of("poison").len();
    assert_eq!(calls, MAX_ATTEMPTS, "the API's ledger");
    let line = worker.log_line("record_refused");
    assert_contains(&line, &["ZX001", "signaling.outbox"]);
    assert!(!line.contains("poison"), "{line}");
}

/// A function of the application may raise the code of an outage, for example of a server that the function calls.
#[tokio::test]
async fn a_message_that_is_refused_with_the_code_of_an_outage_stops_no_other() {
    let codes = [
        "08006", "25006", "40001", "53100", "55P03", "57014", "58030",
    ];
    for condition in ["new.status = 'message_sent'", "new.claim_id is not null"] {
        let world = World::new().await;
        for code in codes {
            insert(&world, code).await;
        }
        world.insert_many(50).await;
        let list = codes.map(|code| format!("'{code}'")).join(", ");
        world
            .execute(&format!(
                "create function refuse() returns trigger language plpgsql as
                 $$ begin raise exception 'no' using errcode = new.payload; end $$;
                 create trigger refuse before update on signaling.outbox for each row
                 when (new.payload in ({list}) and {condition}) execute function refuse()"
            ))
            .await;
        let _worker = world.worker().short_leases().start();
        world.until_sent(50).await;
        for call in world.simulator.ledger().calls() {
            let payload = call.payload.unwrap_or_default();
            let is_repeated = world.calls_of(&payload).len() > 1;
            assert!(!is_repeated || codes.contains(&&*payload), "{payload}");
        }
    }
}

#[tokio::test]
async fn a_message_that_refuses_success_and_failure_is_called_no_more_often_either() {
    let world = World::new().await;
    let id = insert(&world, "poison").await;
    let condition = "new.payload = 'poison' and new.status <> 'pending'";
    refuse(&world, "outbox", "update", condition).await;
    let mut worker = world.worker().short_leases().start();
    worker.until_logged("messages_refused").await;
    let fine = insert(&world, "fine").await;
    world.until_final(fine).await;
    assert_eq!(world.row(id).await.status, "pending");
    assert_eq!(world.calls_of("poison").len(), MAX_ATTEMPTS);
    allow(&world).await;
    assert_eq!(world.until_final(id).await.status, "failed");
    worker.stop().await;
    assert_eq!(world.calls_of("poison").len(), MAX_ATTEMPTS);
}

#[tokio::test]
async fn a_message_that_refuses_any_change_is_not_called_and_stops_no_other() {
    let world = World::new().await;
    let id = insert(&world, "poison").await;
    refuse(&world, "outbox", "update", "new.payload = 'poison'").await;
    world.insert_many(20).await;
    let mut worker = world.worker().short_leases().start();
    world.until_sent(20).await;
    worker.until_logged("messages_refused").await;
    assert!(world.calls_of("poison").is_empty());
    // A trigger may raise a payload as its message, with any code.
    let cancelled = world.command(&["cancel", &id.to_string()]).finish().await;
    assert_eq!(cancelled.code, Some(1), "{cancelled:?}");
    assert!(!cancelled.stderr.contains("poison"), "{cancelled:?}");
    assert!(!worker.stderr.text().contains("poison"));
    allow(&world).await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;
    assert_eq!(world.calls_of("poison").len(), 1);
    assert_eq!(worker.logged("database_failed"), 0);
}

#[tokio::test]
async fn an_attempt_that_can_not_be_logged_costs_no_second_call() {
    let world = World::new().await;
    world.set_faults(&["400:destination=nobody"]);
    refuse(&world, "attempt", "insert", "true").await;
    let mut worker = world.worker().short_leases().start();
    let message = json!({"destination": "nobody", "payload": "rejected"});
    let (id, row) = world.deliver(message).await;
    worker.until_logged("record_refused").await;
    worker.stop().await;
    assert_eq!((&*row.status, row.error), ("failed", None));
    assert_eq!(world.calls_of("rejected").len(), 1);
    assert!(world.attempts(id).await.is_empty());
}

#[tokio::test]
async fn details_that_a_constraint_refuses_cost_no_second_call() {
    let world = World::new().await;
    world
        .execute(
            "alter table signaling.outbox add constraint short_ids check (length(request_id) < 2)",
        )
        .await;
    let id = insert(&world, "fine").await;
    let mut worker = world.worker().short_leases().start();
    let row = world.until_final(id).await;
    worker.until_logged("record_refused").await;
    worker.stop().await;
    assert_eq!((&*row.status, row.request_id), ("message_sent", None));
    assert_eq!(world.calls_of("fine").len(), 1);
    let line = worker.log_line("record_refused");
    assert!(line.contains("23514 short_ids"), "{line}");
}

#[tokio::test]
async fn a_message_whose_claim_a_trigger_skips_is_reported_by_log_and_commands() {
    let world = World::new().await;
    let id = insert(&world, "poison").await;
    world
        .execute(
            "create function skip() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger \"Skip it\" before update on signaling.outbox for each row
             when (new.payload = 'poison') execute function skip()",
        )
        .await;
    let worker = world.worker().short_leases().start();
    worker.until_logged("messages_refused").await;
    let fine = insert(&world, "fine").await;
    assert_eq!(world.until_final(fine).await.status, "message_sent");

    let (id_text, advice) = (
        id.to_string(),
        ["\\d signaling.outbox", "worker resume default"],
    );
    let message = world.run(&["message", &id_text]).await;
    assert_contains(&message, &["refuses to change the message"]);
    assert_contains(&message, &advice);
    let status = world.run(&["status"]).await;
    assert_contains(&status, &["refused    1: "]);
    assert_contains(&status, &advice);
    let json = world.run(&["message", &id_text, "--json"]).await;
    assert_contains(&json, &["\"refused_until\": \""]);

    // The command tries each message, although it can't cancel the first one.
    let later = world.time_in(600_000).await;
    let other = world.insert(peer(json!({"due_at": later}))).await;
    let cancelled = world
        .command(&["cancel", &id_text, &other.to_string()])
        .finish()
        .await;
    assert_eq!(cancelled.code, Some(1), "{cancelled:?}");
    let phrases = ["a trigger skips its update (\"Skip it\")"];
    assert_contains(&cancelled.stdout, &phrases);
    assert_eq!(world.row(other).await.status, "cancelled");
    assert_eq!(world.row(id).await.status, "pending");
}
