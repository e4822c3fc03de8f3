//! Triggers of the application that keep one message waiting until Postgres ends the statement. A function with `one_by_one`
//! finds the message, and the other messages change.

use serde_json::json;
use sqlx::PgConnection;

use super::record::{Record, try_record};
use super::{Claim, database_error, insert, world};
use crate::schema::try_to;
use harness::{World, ask, execute, peer};

/// Creates a trigger that delays each change that meets a condition.
async fn slow_down(world: &World, table: &str, event: &str, condition: &str) {
    world
        .execute(&format!(
            "create function wait() returns trigger language plpgsql as
             $$ begin perform pg_sleep(60); return coalesce(new, old); end $$;
             create trigger wait before {event} on signaling.{table} for each row
             when ({condition}) execute function wait()"
        ))
        .await;
}

/// Keeps updates of the messages with the payload `slow` waiting.
async fn slow_down_updates(world: &World) {
    slow_down(world, "outbox", "update", "new.payload = 'slow'").await;
}

/// A session whose statements Postgres ends, as it does for a worker that changes one message at a time.
async fn bounded(world: &World) -> PgConnection {
    let mut session = world.connect().await;
    execute(&mut session, "set statement_timeout = '1500ms'").await;
    session
}

#[tokio::test]
async fn a_claim_finds_the_message_that_keeps_it_waiting_and_leaves_the_rest() {
    let world = world().await;
    let first = insert(&world, "fine").await;
    let slow = insert(&world, "slow").await;
    let last = insert(&world, "fine").await;
    slow_down_updates(&world).await;
    let mut session = bounded(&world).await;
    let ended = Claim::default().refusal(&mut session).await;
    assert_eq!(ended.code(), "57014");
    let claimed = Claim::one_by_one().run(&mut session).await;
    assert_eq!((claimed.ids(), claimed.lane.refused), (vec![first], 1));
    assert_eq!(claimed.lane.slots, 2, "the rest was not looked at");
    assert_eq!(world.refused().await, [(slow, Some("57014".into()))]);
    assert_eq!(Claim::default().run(&mut session).await.ids(), [last]);

    // Another try comes after all other messages.
    let others = [insert(&world, "fine").await, insert(&world, "fine").await];
    world
        .execute("update signaling.refused set retry_at = now()")
        .await;
    let claimed = Claim::one_by_one().run(&mut session).await;
    assert_eq!((claimed.ids(), claimed.lane.refused), (others.to_vec(), 1));
}

#[tokio::test]
async fn a_lost_message_that_waits_in_a_trigger_keeps_no_other_from_its_end() {
    for (table, event, condition) in [
        ("outbox", "update", "new.payload = 'slow'"),
        ("attempt", "insert", "new.message_id = 1"),
    ] {
        let world = world().await;
        let mut ids = Vec::new();
        for payload in ["slow", "fine"] {
            let message = peer(json!({"payload": payload, "at_most_once": true}));
            ids.push(world.insert(message).await);
        }
        assert_eq!(ids[0], 1);
        Claim::default().run(&world.pool).await;
        world.end_leases().await;
        slow_down(&world, table, event, condition).await;
        let mut session = bounded(&world).await;
        let claimed = Claim::one_by_one().run(&mut session).await;
        assert_eq!(claimed.lane.refused, 1, "{table}");
        assert_eq!(world.refused().await, [(ids[0], Some("57014".into()))]);
        Claim::default().run(&mut session).await;
        assert_eq!(world.row(ids[1]).await.status, "unknown", "{table}");
        assert_eq!(world.row(ids[0]).await.status, "pending", "{table}");
    }
}

#[tokio::test]
async fn messages_expire_beside_one_that_waits_in_a_trigger() {
    let world = world().await;
    let past = world.time_in(-1_000).await;
    let later = world.time_in(60_000).await;
    let overdue =
        |payload: &str| peer(json!({"payload": payload, "expires_at": past, "due_at": later}));
    let slow = world.insert(overdue("slow")).await;
    let fine = world.insert(overdue("fine")).await;
    slow_down_updates(&world).await;
    let mut session = bounded(&world).await;
    let expire = "select sum(expired) = 0 and sum(refused) = 1 from signaling.expire(array['default'], 'infinity', true)";
    assert!(ask::<bool>(&mut session, expire).await);
    assert_eq!(world.refused().await, [(slow, Some("57014".into()))]);
    let expire = "select from signaling.expire(array['default'], 'infinity')";
    execute(&mut session, expire).await;
    assert_eq!(world.row(fine).await.status, "expired");
}

#[tokio::test]
async fn a_record_that_waits_in_a_trigger_is_refused_and_the_rest_is_tried_again() {
    let world = world().await;
    for payload in ["fine", "slow", "fine"] {
        insert(&world, payload).await;
    }
    let claim = Claim::default().run(&world.pool).await;
    slow_down_updates(&world).await;
    let mut session = bounded(&world).await;
    let records = [1, 2, 3].map(|id| Record::accepted(id, &claim));
    let results = try_record(&mut session, &records, true).await;
    let expected = [
        ("recorded", None),
        ("refused", Some("57014")),
        ("locked", None),
    ];
    let expected = expected.map(|(result, reason)| (result.to_owned(), reason.map(str::to_owned)));
    assert_eq!(results.expect("an answer"), expected);
    assert_eq!(world.row(1).await.status, "message_sent");
    assert_eq!(world.row(2).await.status, "pending");
}

#[tokio::test]
async fn old_messages_are_deleted_beside_one_whose_deletion_waits_in_a_trigger() {
    let world = world().await;
    for payload in ["slow", "fine", "fine", "fine"] {
        insert(&world, payload).await;
    }
    world
        .execute(
            "update signaling.outbox set status = 'cancelled', finished_at = now() - interval '1 hour',
                 created_at = now() - interval '2 hours'",
        )
        .await;
    slow_down(&world, "outbox", "delete", "old.payload = 'slow'").await;
    let mut session = bounded(&world).await;
    let plain = "select signaling.delete_finished(gen_random_uuid(), '10 minutes')";
    let ended = try_to(&mut session, plain).await;
    assert_eq!(database_error(ended.expect_err("ended")).code(), "57014");
    let delete =
        "select signaling.delete_finished(gen_random_uuid(), '10 minutes', one_by_one => true)";
    // Each pass deletes those that come before the slow one, in any order.
    while world.count("true").await > 1 {
        execute(&mut session, delete).await;
        world
            .execute("update signaling.retention set held_until = now()")
            .await;
    }
    assert_eq!(world.count("payload = 'slow'").await, 1);
}

/// `is_slow` blames a trigger only while its own test write is fast. Here that write is slow, too, as in an overloaded
/// database.
#[tokio::test]
async fn a_database_whose_own_writes_are_slow_refuses_no_message() {
    let world = world().await;
    insert(&world, "slow").await;
    slow_down_updates(&world).await;
    world
        .execute(
            "create function lag() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$;
             create trigger lag before insert on signaling.refused for each row execute function lag()",
        )
        .await;
    let mut session = bounded(&world).await;
    let ended = Claim::one_by_one().refusal(&mut session).await;
    assert_eq!(ended.code(), "57014");
    assert_eq!(world.refused().await, []);
}

#[tokio::test]
async fn a_statement_that_ends_outside_of_the_applications_functions_refuses_no_message() {
    let world = world().await;
    let of_application = "PL/pgSQL function public.wait() line 1 at PERFORM";
    let of_schema =
        "PL/pgSQL function signaling.keep_claimable(tid[],uuid) line 20 at SQL statement";
    for (code, context, began, is_slow) in [
        ("57014", of_application, "5 s", true),
        ("57014", "PL/Python function \"wait\"", "5 s", true),
        ("57014", "SQL function \"wait\" statement 1", "5 s", true),
        ("57014", of_application, "0.1 s", false),
        ("57014", "", "5 s", false),
        ("57014", of_schema, "5 s", false),
        ("40P01", of_application, "5 s", false),
    ] {
        let query = format!(
            "select signaling.is_slow('{code}', '{context}', clock_timestamp() - interval '{began}')"
        );
        assert_eq!(world.ask::<bool>(&query).await, is_slow, "{code} {context}");
    }
}
