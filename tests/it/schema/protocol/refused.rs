//! Triggers and constraints of the application that refuse what the protocol writes: one message keeps no other from being
//! claimed, recorded, ended or deleted.

use serde_json::json;
use time::OffsetDateTime;

use super::record::{Record, try_record};
use super::{Claim, claimed_message, hold, insert, world};
use harness::{World, peer};

/// The payload of messages that a trigger refuses.
const POISON: &str = "poison";

/// A function that refuses by an error, by a failed assertion, or by skipping the row.
const REFUSALS: [&str; 10] = [
    "raise exception 'no' using errcode = 'ZX001'",
    // The codes of outages, which an application's function may raise as well.
    "raise exception 'no' using errcode = '08006'",
    "raise exception 'no' using errcode = '25006'",
    "raise exception 'no' using errcode = '40001'",
    "raise exception 'no' using errcode = '53100'",
    "raise exception 'no' using errcode = '55P03'",
    "raise exception 'no' using errcode = '57014'",
    "perform 1 / 0",
    "assert false, 'no'",
    "return null",
];

/// Creates a trigger on a table of the schema that refuses rows for which a condition over `new` holds.
async fn refuse(world: &World, table: &str, event: &str, condition: &str, refusal: &str) {
    let row = if event == "delete" { "old" } else { "new" };
    world
        .execute(&format!(
            "create or replace function refuse_{table}() returns trigger language plpgsql as
             $$ begin {refusal}; return {row}; end $$;
             drop trigger if exists refuse on signaling.{table};
             create trigger refuse before {event} on signaling.{table} for each row
             when ({condition}) execute function refuse_{table}()"
        ))
        .await;
}

/// Refuses any change of the messages with the payload `POISON`.
async fn refuse_poison(world: &World, refusal: &str) {
    refuse(world, "outbox", "update", "new.payload = 'poison'", refusal).await;
}

/// Lets everything through again.
async fn allow(world: &World, table: &str) {
    world
        .execute(&format!("drop trigger refuse on signaling.{table}"))
        .await;
}

async fn status(world: &World, id: i64) -> String {
    world.row(id).await.status
}

/// Records an outcome with or without its details. Returns the result, and why the database refuses it.
async fn record_one_by_one(world: &World, outcome: Record) -> (String, Option<String>) {
    let results = try_record(&world.pool, &[outcome], true).await;
    results.expect("recorded").remove(0)
}

#[tokio::test]
async fn a_message_that_refuses_any_change_keeps_no_other_from_being_claimed() {
    let world = world().await;
    for refusal in REFUSALS {
        let poisoned = insert(&world, POISON).await;
        let others = [insert(&world, "fine").await, insert(&world, "fine").await];
        refuse_poison(&world, refusal).await;
        if refusal != "return null" {
            Claim::default().refusal(&world.pool).await;
        }
        let claimed = Claim::one_by_one().run(&world.pool).await;
        assert_eq!(claimed.ids(), others, "{refusal}");
        assert_eq!(claimed.lane.refused, 1, "{refusal}");
        assert_eq!(world.refused().await.len(), 1, "{refusal}");

        // Later claims pass over the message, and so does an idle worker's look.
        let other = insert(&world, "fine").await;
        assert_eq!(Claim::default().run(&world.pool).await.ids(), [other]);
        let due: Option<i64> = world
            .ask(
                "select (due->'first'->>1)::bigint from signaling.next_due(array['default'], array['-infinity'::timestamptz],
                     array[0::bigint], array['-infinity'::timestamptz], array[0::bigint], '500 ms', '2 s')",
            )
            .await;
        assert_eq!(due, None, "{refusal}");
        assert_eq!(world.row(poisoned).await.claim_id, None);

        // Another try is due, and succeeds: the note is gone.
        allow(&world, "outbox").await;
        world
            .execute("update signaling.refused set retry_at = now()")
            .await;
        assert_eq!(Claim::default().run(&world.pool).await.ids(), [poisoned]);
        assert!(world.refused().await.is_empty(), "{refusal}");
    }
}

#[tokio::test]
async fn a_message_whose_update_is_skipped_takes_a_slot_of_one_claim_only() {
    let world = world().await;
    insert(&world, POISON).await;
    refuse_poison(&world, "return null").await;
    assert_eq!(Claim::default().run(&world.pool).await.lane.refused, 1);
    assert_eq!(world.refused().await.len(), 1);
    let next_slot_at: OffsetDateTime = world.lane("next_slot_at").await;
    assert!(Claim::default().run(&world.pool).await.messages.is_empty());
    let after: OffsetDateTime = world.lane("next_slot_at").await;
    assert_eq!(after, next_slot_at, "the second claim gives out no slot");
}

#[tokio::test]
async fn a_deferred_constraint_trigger_is_found_before_the_commit() {
    let world = world().await;
    insert(&world, POISON).await;
    let fine = insert(&world, "fine").await;
    world
        .execute(
            "create function refuse_later() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
             create constraint trigger refuse after update on signaling.outbox deferrable initially deferred
             for each row when (new.payload = 'poison') execute function refuse_later()",
        )
        .await;
    let error = Claim::default().refusal(&world.pool).await;
    assert_eq!(error.code(), "P0001");
    let claimed = Claim::one_by_one().run(&world.pool).await;
    assert_eq!((claimed.ids(), claimed.lane.refused), (vec![fine], 1));
}

#[tokio::test]
async fn a_held_lane_probes_with_a_message_that_can_be_claimed() {
    let world = world().await;
    insert(&world, POISON).await;
    refuse_poison(&world, REFUSALS[0]).await;
    let claimed = Claim::one_by_one().run(&world.pool).await;
    assert_eq!(claimed.lane.refused, 1);
    let fine = insert(&world, "fine").await;
    hold(&world).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [fine]);
}

#[tokio::test]
async fn a_claim_of_messages_that_only_together_are_refused_takes_one() {
    let world = world().await;
    insert(&world, "fine").await;
    insert(&world, "fine").await;
    world
        .execute("create unique index one_at_a_time on signaling.outbox (claimed_by)")
        .await;
    let error = Claim::default().refusal(&world.pool).await;
    assert_eq!(error.code(), "23505");
    let claimed = Claim::of_at_most(1).run(&world.pool).await;
    assert_eq!(claimed.messages.len(), 1);
}

#[tokio::test]
async fn a_lost_message_that_can_not_end_is_not_called_again() {
    for refusal in REFUSALS {
        let world = world().await;
        let id = world
            .insert(peer(json!({"payload": POISON, "max_attempts": 1})))
            .await;
        Claim::default().run(&world.pool).await;
        world.end_leases().await;
        let condition = "new.payload = 'poison' and new.status <> 'pending'";
        refuse(&world, "outbox", "update", condition, refusal).await;
        let fine = insert(&world, "fine").await;
        let claimed = Claim::one_by_one().run(&world.pool).await;
        assert_eq!(claimed.ids(), [fine], "{refusal}");
        let found = (claimed.lane.refused, claimed.lane.failed);
        assert_eq!(found, (1, 0), "{refusal}");
        assert!(Claim::default().run(&world.pool).await.messages.is_empty());
        let retry_soon = "update signaling.refused set retry_at = now()";
        world.execute(retry_soon).await;
        let claimed = Claim::one_by_one().run(&world.pool).await;
        assert_eq!(claimed.lane.refused, 1, "{refusal}");
        allow(&world, "outbox").await;
        world.execute("select signaling.resume('default')").await;
        assert!(Claim::default().run(&world.pool).await.messages.is_empty());
        assert_eq!(status(&world, id).await, "failed", "{refusal}");
        // Each try of the claim has found the same lost attempt.
        assert_eq!(world.attempts(id).await.len(), 1, "{refusal}");
    }
}

#[tokio::test]
async fn where_attempts_can_not_be_logged_lost_messages_go_on_and_end_all_the_same() {
    let world = world().await;
    let ends = world.insert(peer(json!({"at_most_once": true}))).await;
    let goes_on = world.insert(peer(json!({}))).await;
    Claim::default().run(&world.pool).await;
    world.end_leases().await;
    refuse(&world, "attempt", "insert", "true", REFUSALS[0]).await;
    Claim::default().refusal(&world.pool).await;
    let claimed = Claim::one_by_one().run(&world.pool).await;
    assert_eq!((claimed.ids(), claimed.lane.refused), (vec![goes_on], 0));
    assert_eq!(status(&world, ends).await, "unknown");
}

#[tokio::test]
async fn an_outcome_that_is_refused_is_written_in_its_barest_form() {
    let details = "new.error is not null or new.request_id is not null";
    for (table, event, condition, is_accepted) in [
        ("outbox", "update", details, true),
        ("outbox", "update", details, false),
        ("attempt", "insert", "true", false),
    ] {
        let world = world().await;
        let (id, claim) = claimed_message(&world).await;
        refuse(&world, table, event, condition, REFUSALS[0]).await;
        let outcome = if is_accepted {
            Record::accepted(id, &claim)
        } else {
            Record::failed(id, &claim)
        };
        let written = record_one_by_one(&world, outcome).await;
        let expected = ("without_details".to_owned(), Some("ZX001".to_owned()));
        assert_eq!(written, expected, "{table}, accepted: {is_accepted}");
        let row = world.row(id).await;
        assert_ne!(row.status, "pending");
        assert_eq!((row.error, row.request_id, row.attempts), (None, None, 1));
        assert!(row.sent_at.is_some());
        assert!(world.attempts(id).await.is_empty());
    }
}

#[tokio::test]
async fn an_outcome_that_is_refused_in_any_form_is_named_with_its_reason() {
    let world = world().await;
    let id = insert(&world, POISON).await;
    let fine = insert(&world, "fine").await;
    let claim = Claim::default().run(&world.pool).await;
    world
        .execute("alter table signaling.outbox add constraint never_sent check (payload <> 'poison' or status <> 'message_sent')")
        .await;
    let records = [id, fine].map(|id| Record::accepted(id, &claim));
    let results = try_record(&world.pool, &records, true).await;
    let refused = ("refused".to_owned(), Some("23514 never_sent".to_owned()));
    let expected = [refused, ("recorded".to_owned(), None)];
    assert_eq!(results.expect("recorded"), expected);
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.claim_id), ("pending", Some(claim.id)));
}

#[tokio::test]
async fn an_outcome_whose_update_is_skipped_is_refused_and_not_locked() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let condition = "new.status = 'message_sent'";
    refuse(&world, "outbox", "update", condition, "return null").await;
    let outcome = [Record::accepted(id, &claim)];
    let results = try_record(&world.pool, &outcome, false).await;
    let expected = [("refused".to_owned(), None)];
    assert_eq!(results.expect("an answer"), expected);
}

#[tokio::test]
async fn a_message_that_can_not_expire_keeps_no_other_from_it() {
    let world = world().await;
    let past = world.time_in(-1_000).await;
    let later = world.time_in(60_000).await;
    for refusal in REFUSALS {
        let overdue =
            |payload: &str| peer(json!({"payload": payload, "expires_at": past, "due_at": later}));
        let poisoned = world.insert(overdue(POISON)).await;
        let fine = world.insert(overdue("fine")).await;
        refuse_poison(&world, refusal).await;
        let expire = "select concat_ws(' ', expired, refused) from signaling.expire(array['default'], 'infinity')";
        assert_eq!(world.ask::<String>(expire).await, "1 1", "{refusal}");
        assert_eq!(status(&world, fine).await, "expired");
        assert_eq!(status(&world, poisoned).await, "pending");
        // The next calls pass over it.
        let again: Vec<String> = world.column(expire).await;
        assert!(again.is_empty(), "{refusal}: {again:?}");
    }
}

#[tokio::test]
async fn a_claim_is_given_back_but_for_the_message_that_refuses_it() {
    let world = world().await;
    let poisoned = insert(&world, POISON).await;
    let fine = insert(&world, "fine").await;
    let claim = Claim::default().run(&world.pool).await;
    refuse_poison(&world, REFUSALS[0]).await;
    world
        .execute(&format!(
            "select signaling.release('default', array['{}'::uuid])",
            claim.id
        ))
        .await;
    assert_eq!(world.row(fine).await.claim_id, None);
    assert_eq!(world.row(poisoned).await.claim_id, Some(claim.id));
}

#[tokio::test]
async fn a_lost_message_is_cancelled_although_its_attempt_can_not_be_logged() {
    let world = world().await;
    let (id, _) = claimed_message(&world).await;
    world.end_leases().await;
    refuse(&world, "attempt", "insert", "true", REFUSALS[0]).await;
    let cancelled: bool = world.ask(&format!("select signaling.cancel({id})")).await;
    assert!(cancelled);
    assert_eq!(status(&world, id).await, "cancelled");
}

#[tokio::test]
async fn a_message_with_a_foreign_key_keeps_no_other_from_deletion() {
    let world = world().await;
    let kept = insert(&world, "fine").await;
    let old = insert(&world, "fine").await;
    world
        .execute(&format!(
            "update signaling.outbox set status = 'cancelled', finished_at = now() - interval '1 hour',
                 created_at = now() - interval '2 hours';
             create table receipt (message_id bigint references signaling.outbox);
             insert into receipt values ({kept})"
        ))
        .await;
    let deleted: i64 = world
        .ask("select deleted from signaling.delete_finished(gen_random_uuid(), interval '10 minutes')")
        .await;
    assert_eq!(deleted, 1);
    let left: Vec<i64> = world.column("select id from signaling.outbox").await;
    assert_eq!(left, [kept], "{old} is gone");
}
