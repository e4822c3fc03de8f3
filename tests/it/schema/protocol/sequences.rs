//! Sequences that are behind their tables: a logical replica has the rows and not the positions of the sequences.

use serde_json::json;

use super::record::{Record, record};
use super::{Claim, world};
use harness::{World, peer};

/// So many attempts are there, and the sequence begins anew.
const ATTEMPTS: i64 = 500;

/// A world with a message, [`ATTEMPTS`] attempts of it, and the sequence of attempts at its start.
async fn world_behind() -> (World, i64) {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, outcome)
             select {id}, 1, 'transient' from generate_series(1, {ATTEMPTS});
             select setval('signaling.attempt_id_seq', 1, false)"
        ))
        .await;
    (world, id)
}

async fn attempts(world: &World) -> i64 {
    world.ask("select count(*) from signaling.attempt").await
}

/// How many sequences are behind their tables.
async fn behind(world: &World) -> i64 {
    let query = "select count(*) from signaling.sequences_behind()";
    world.ask(query).await
}

#[tokio::test]
async fn a_failed_attempt_is_recorded_while_the_sequence_of_attempts_is_behind() {
    let (world, id) = world_behind().await;
    for more in 1..=2 {
        world.set_messages("due_at = now()").await;
        let claimed = Claim::default().run(&world.pool).await;
        let failure = Record::transient(id, &claimed);
        assert_eq!(record(&world.pool, &[failure]).await, ["recorded"]);
        assert_eq!(attempts(&world).await, ATTEMPTS + more);
        let newest: i64 = world.ask("select max(id) from signaling.attempt").await;
        assert!(newest > ATTEMPTS);
    }
    assert_eq!(behind(&world).await, 0, "a record has put it right");
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
    let sequences: Vec<(String, i64, i64, i64, String)> =
        sqlx::query_as("select * from signaling.sequences_behind()")
            .fetch_all(&world.pool)
            .await
            .expect("sequences");
    let found: Vec<_> = sequences
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
    for (.., statement) in &sequences {
        world.execute(statement).await;
    }
    world.insert(insert).await;
    assert_eq!(behind(&world).await, 0);
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
    assert_eq!(behind(&world).await, 0);
}
