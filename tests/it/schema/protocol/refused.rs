//! Triggers and constraints of the application that refuse what the protocol writes: one message keeps no other from being
//! claimed, recorded, ended or deleted.

use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Claim, Claimed, database_error, world};
use testkit::{World, peer};

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

async fn insert(world: &World, payload: &str) -> i64 {
    world.insert(peer(json!({"payload": payload}))).await
}

async fn status(world: &World, id: i64) -> String {
    world.row(id).await.status
}

/// A claim that finds out which messages are refused. The columns `refused` and `failed` of the lane.
async fn claim_one_by_one(world: &World) -> (Claimed, i32, i32) {
    let id = Uuid::new_v4();
    let statement = Claim::default()
        .statement(id)
        .replace("avoided =>", "one_by_one => true, avoided =>");
    let rows: Vec<PgRow> = sqlx::query(AssertSqlSafe(statement))
        .fetch_all(&world.pool)
        .await
        .expect("claimed");
    let lane = rows.last().expect("a row about the lane");
    let counts = (lane.get("refused"), lane.get("failed"));
    (Claimed::from_rows(id, &rows), counts.0, counts.1)
}

/// Records an outcome of one message.
async fn record(
    world: &World,
    id: i64,
    claim: &Claimed,
    columns: &str,
) -> (String, Option<String>) {
    let query = format!(
        "select result, reason from signaling.record(
             recorded_by => 'tester', ids => array[{id}::bigint], claim_ids => array['{}'::uuid],
             original_due_at => array[now()], delays => array[null::interval], sent_at => array[now()], durations => array[interval '1 ms'],
             charged => array[true], {columns})",
        claim.id
    );
    sqlx::query_as(AssertSqlSafe(query))
        .fetch_one(&world.pool)
        .await
        .expect("recorded")
}

const ACCEPTED: &str = "statuses => array['message_sent'], http_statuses => array[200],
                        request_ids => array['request-1'], errors => array[null::text], outcomes => array[null::text]";
const REJECTED: &str =
    "statuses => array['failed'], http_statuses => array[400], request_ids => array['request-1'],
                        errors => array['HTTP 400'], outcomes => array['rejected']";

#[tokio::test]
async fn a_message_that_refuses_any_change_keeps_no_other_from_being_claimed() {
    for refusal in REFUSALS {
        let world = world().await;
        let poisoned = insert(&world, POISON).await;
        let mut others = vec![insert(&world, "fine").await, insert(&world, "fine").await];
        refuse_poison(&world, refusal).await;
        if refusal != "return null" {
            let refused = Claim::default().try_run(&world.pool).await;
            refused.expect_err("the claim of all messages fails");
        }
        let (claimed, refused, _) = claim_one_by_one(&world).await;
        assert_eq!(claimed.ids(), others, "{refusal}");
        assert_eq!(refused, 1, "{refusal}");
        assert_eq!(world.refused().await.len(), 1, "{refusal}");

        // Later claims pass over the message, and so does an idle worker's look.
        others = vec![insert(&world, "fine").await];
        assert_eq!(Claim::default().run(&world.pool).await.ids(), others);
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
    let statement = Claim::default().statement(Uuid::new_v4());
    let counted = format!("select refused from ({statement}) as claimed where id is null");
    assert_eq!(world.ask::<i32>(&counted).await, 1);
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
    let refused = Claim::default().try_run(&world.pool).await;
    assert_eq!(database_error(refused.expect_err("refused")).0, "P0001");
    let (claimed, refused, _) = claim_one_by_one(&world).await;
    assert_eq!((claimed.ids(), refused), (vec![fine], 1));
}

#[tokio::test]
async fn a_held_lane_probes_with_a_message_that_can_be_claimed() {
    let world = world().await;
    insert(&world, POISON).await;
    refuse_poison(&world, REFUSALS[0]).await;
    let (_, refused, _) = claim_one_by_one(&world).await;
    assert_eq!(refused, 1);
    let fine = insert(&world, "fine").await;
    world
        .set_lane(
            "hold = 'unavailable', hold_reason = 'a test', hold_since = now(), hold_until = now()",
        )
        .await;
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
    let refused = Claim::default().try_run(&world.pool).await;
    assert_eq!(database_error(refused.expect_err("refused")).0, "23505");
    let claimed = Claim::of_at_most(1).run(&world.pool).await;
    assert_eq!(claimed.messages.len(), 1);
}

#[tokio::test]
async fn a_lost_message_without_attempts_left_ends_without_another_call() {
    for (at_most_once, expected) in [(false, "failed"), (true, "unknown")] {
        let world = world().await;
        let id = world
            .insert(peer(
                json!({"max_attempts": 2, "at_most_once": at_most_once}),
            ))
            .await;
        for attempts in 1.. {
            let claimed = Claim::default().run(&world.pool).await;
            if claimed.messages.is_empty() {
                assert_eq!(attempts, if at_most_once { 2 } else { 3 }, "{expected}");
                break;
            }
            world.end_leases().await;
        }
        let row = world.row(id).await;
        assert_eq!(row.status, expected);
        let error = row.error.expect("an error");
        assert!(error.contains("whether it was called"), "{error}");
        let logged = world.attempts(id).await;
        let found = logged.len();
        assert_eq!(found, usize::try_from(row.attempts).expect("a count"));
        assert!(logged.iter().all(|attempt| attempt.outcome == "lost"));
    }
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
        let (claimed, refused, failed) = claim_one_by_one(&world).await;
        let found = (claimed.ids(), refused, failed);
        assert_eq!(found, (vec![fine], 1, 0), "{refusal}");
        assert!(Claim::default().run(&world.pool).await.messages.is_empty());
        allow(&world, "outbox").await;
        world.execute("select signaling.resume('default')").await;
        assert!(Claim::default().run(&world.pool).await.messages.is_empty());
        assert_eq!(status(&world, id).await, "failed", "{refusal}");
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
    Claim::default()
        .try_run(&world.pool)
        .await
        .expect_err("the log of attempts is closed");
    let (claimed, refused, _) = claim_one_by_one(&world).await;
    assert_eq!((claimed.ids(), refused), (vec![goes_on], 0));
    assert_eq!(status(&world, ends).await, "unknown");
}

#[tokio::test]
async fn an_outcome_that_is_refused_is_written_in_its_barest_form() {
    for (table, event, condition) in [
        (
            "outbox",
            "update",
            "new.error is not null or new.request_id is not null",
        ),
        ("attempt", "insert", "true"),
    ] {
        for outcome in [ACCEPTED, REJECTED] {
            let world = world().await;
            let id = insert(&world, "fine").await;
            let claim = Claim::default().run(&world.pool).await;
            refuse(&world, table, event, condition, REFUSALS[0]).await;
            if table == "attempt" && outcome == ACCEPTED {
                // An accepted message logs no attempt.
                let written = record(&world, id, &claim, outcome).await;
                assert_eq!(written, ("recorded".to_owned(), None));
                continue;
            }
            let one_by_one = format!("{outcome}, one_by_one => true");
            let (result, reason) = record(&world, id, &claim, &one_by_one).await;
            let found = (&*result, reason.as_deref());
            assert_eq!(found, ("without_details", Some("ZX001")), "{table}");
            let row = world.row(id).await;
            assert_ne!(row.status, "pending");
            assert_eq!((row.error, row.request_id, row.attempts), (None, None, 1));
            assert!(row.sent_at.is_some());
            assert!(world.attempts(id).await.is_empty());
        }
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
    let query = format!(
        "select string_agg(concat_ws(' ', result, reason), ', ' order by place) from signaling.record(
             recorded_by => 'tester', ids => array[{id}, {fine}]::bigint[],
             claim_ids => array['{0}', '{0}']::uuid[], original_due_at => array[now(), now()], delays => array[null, null]::interval[],
             sent_at => array[now(), now()], durations => array[interval '1 ms', '1 ms'],
             charged => array[true, true], statuses => array['message_sent', 'message_sent'],
             http_statuses => array[200, 200], request_ids => array['1', '2'], errors => array[null, null]::text[],
             outcomes => array[null, null]::text[], one_by_one => true)",
        claim.id
    );
    let results: String = world.ask(&query).await;
    assert_eq!(results, "refused 23514 never_sent, recorded");
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.claim_id), ("pending", Some(claim.id)));
}

#[tokio::test]
async fn an_outcome_whose_update_is_skipped_is_refused_and_not_locked() {
    let world = world().await;
    let id = insert(&world, POISON).await;
    let claim = Claim::default().run(&world.pool).await;
    refuse(
        &world,
        "outbox",
        "update",
        "new.status = 'message_sent'",
        "return null",
    )
    .await;
    let (result, reason) = record(&world, id, &claim, ACCEPTED).await;
    assert_eq!((&*result, reason), ("refused", None));
}

#[tokio::test]
async fn a_message_that_can_not_expire_keeps_no_other_from_it() {
    for refusal in REFUSALS {
        let world = world().await;
        let past = world.time_in(-1_000).await;
        let later = world.time_in(60_000).await;
        let overdue =
            |payload: &str| peer(json!({"payload": payload, "expires_at": past, "due_at": later}));
        let poisoned = world.insert(overdue(POISON)).await;
        let fine = world.insert(overdue("fine")).await;
        refuse_poison(&world, refusal).await;
        let expire = "select concat_ws(' ', expired, refused) from signaling.expire(array['default'], 'infinity')";
        assert_eq!(world.ask::<String>(expire).await, "1 1", "{refusal}");
        assert_eq!(status(&world, fine).await, "expired");
        assert_eq!(status(&world, poisoned).await, "pending");
        let apps: i64 = world
            .ask("select count(*) from signaling.expire(array['default'], 'infinity')")
            .await;
        assert_eq!(apps, 0, "the next calls pass over it: {refusal}");
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
    let id = insert(&world, "fine").await;
    Claim::default().run(&world.pool).await;
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
