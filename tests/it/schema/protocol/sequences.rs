//! Sequences that are behind their tables: a logical replica has the rows and not the positions of the sequences.

use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use super::{Claim, world};
use testkit::{World, peer};

/// So many attempts are there, and the sequence begins anew.
const ATTEMPTS: i64 = 500;

/// A world with a message, [`ATTEMPTS`] attempts of it, and the sequence of attempts at its start.
async fn world_behind() -> (World, i64) {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, outcome)
             select {id}, 1, 'lost' from generate_series(1, {ATTEMPTS});
             select setval('signaling.attempt_id_seq', 1, false)"
        ))
        .await;
    (world, id)
}

async fn attempts(world: &World) -> i64 {
    world.ask("select count(*) from signaling.attempt").await
}

/// Records a failed attempt of a claimed message; the result.
async fn record_failure(world: &World, id: i64, claim_id: Uuid) -> String {
    sqlx::query(
        "select result from signaling.record('tester', array[$1], array[$2], '{now}', '{null}', '{null}', '{true}', '{now}',
             '{500}', '{null}', '{HTTP 500}', '{transient}', '{1 second}')",
    )
    .bind(id)
    .bind(claim_id)
    .fetch_one(&world.pool)
    .await
    .expect("recorded")
    .get(0)
}

#[tokio::test]
async fn a_failed_attempt_is_recorded_while_the_sequence_of_attempts_is_behind() {
    let (world, id) = world_behind().await;
    for more in 1..=2 {
        world
            .set_messages("due_at = now() where status = 'pending'")
            .await;
        let claimed = Claim::default().run(&world.pool).await;
        assert_eq!(record_failure(&world, id, claimed.id).await, "recorded");
        assert_eq!(attempts(&world).await, ATTEMPTS + more);
        let newest: i64 = world.ask("select max(id) from signaling.attempt").await;
        assert!(newest > ATTEMPTS);
        world
            .set_messages("due_at = now() - interval '1 hour'")
            .await;
        world.set_lane("next_slot_at = 'epoch'").await;
    }
    let behind: i64 = world
        .ask("select count(*) from signaling.sequences_behind()")
        .await;
    assert_eq!(behind, 0, "the first record has put the sequence right");
}

#[tokio::test]
async fn lost_messages_end_although_the_sequence_of_attempts_is_behind() {
    let (world, id) = world_behind().await;
    let lose = "due_at = now() - interval '1 minute', claim_id = gen_random_uuid()";
    world.set_messages(lose).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.ids(), [id]);
    assert_eq!(attempts(&world).await, ATTEMPTS + 1);

    world
        .execute("select setval('signaling.attempt_id_seq', 1, false)")
        .await;
    world.set_messages(lose).await;
    let cancelled: bool = world.ask(&format!("select signaling.cancel({id})")).await;
    assert!(cancelled);
    assert_eq!(attempts(&world).await, ATTEMPTS + 2);
}

#[tokio::test]
async fn a_sequence_that_is_behind_is_found_with_the_statement_that_puts_it_right() {
    let (world, _) = world_behind().await;
    world
        .execute("select setval('signaling.outbox_id_seq', 1, false)")
        .await;
    let behind: Vec<(String, i64, i64, i64, String)> =
        sqlx::query_as("select * from signaling.sequences_behind()")
            .fetch_all(&world.pool)
            .await
            .expect("sequences");
    let found: Vec<_> = behind
        .iter()
        .map(|(table, next, taken, newest, _)| (table.as_str(), *next, *taken, *newest))
        .collect();
    assert_eq!(
        found,
        [
            ("signaling.outbox", 1, 1, 1),
            ("signaling.attempt", 1, 1, ATTEMPTS)
        ]
    );
    let insert = peer(json!({}));
    assert!(world.try_insert(&insert).await.is_err(), "the id is taken");
    for (.., statement) in &behind {
        world.execute(statement).await;
    }
    world.insert(insert).await;
    let behind: i64 = world
        .ask("select count(*) from signaling.sequences_behind()")
        .await;
    assert_eq!(behind, 0);
}

#[tokio::test]
async fn inserts_succeed_up_to_the_id_that_is_named_as_taken_and_fail_there() {
    let world = World::new().await;
    let id = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "delete from signaling.outbox where id = {id};
             insert into signaling.outbox (id, sender, destination, payload) overriding system value
             values ({id} + 2, 'a', 'b', 'c');
             select setval('signaling.outbox_id_seq', {id}, false)"
        ))
        .await;
    let taken: i64 = world
        .ask("select taken_id from signaling.sequences_behind()")
        .await;
    assert_eq!(taken, id + 2);
    for expected in [id, id + 1] {
        assert_eq!(world.insert(peer(json!({}))).await, expected);
    }
    let refused = world.try_insert(&peer(json!({}))).await;
    assert!(refused.is_err(), "the id {taken} is taken");
}

#[tokio::test]
async fn a_new_sequence_is_not_behind_an_empty_table() {
    let world = world().await;
    let behind: i64 = world
        .ask("select count(*) from signaling.sequences_behind()")
        .await;
    assert_eq!(behind, 0);
}
