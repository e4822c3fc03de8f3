//! `signaling.claim`: destinations that have enough calls in flight are passed over.

use serde_json::json;
use time::OffsetDateTime;

use super::{Claim, Claimed, make_retries, world};
use harness::{World, channel, peer};

/// A claim that avoids destinations reads this many first attempts.
const MOST_LOOKED_AT: i64 = 2_000;

fn avoiding(destinations: &[&'static str]) -> Claim {
    Claim {
        avoided: destinations.to_vec(),
        ..Claim::of_at_most(10)
    }
}

/// Inserts so many messages to a destination, all due at the same time, before those of later calls.
async fn insert_to(world: &World, destination: &str, count: i64) {
    world
        .execute(&format!(
            "insert into signaling.outbox (sender, destination, payload, due_at)
             select 'alice', '{destination}', 'hello', '2020-01-01'::timestamptz from generate_series(1, {count})"
        ))
        .await;
}

/// Where a claim stopped looking, as the scan position of the next one.
fn passed(claimed: &Claimed) -> Option<(OffsetDateTime, i64)> {
    claimed.lane.passed_at.zip(claimed.lane.passed_id)
}

#[tokio::test]
async fn a_claim_passes_over_avoided_destinations_and_channels_of_both_kinds() {
    let world = world().await;
    let slow = world.insert(peer(json!({"destination": "slow"}))).await;
    let fine = world.insert(peer(json!({"destination": "fine"}))).await;
    let lobby = world
        .insert(channel(json!({"channel_name": "lobby"})))
        .await;
    let retried = world.insert(peer(json!({"destination": "slow"}))).await;
    let other = world.insert(peer(json!({"destination": "other"}))).await;
    make_retries(&world, &format!("id in ({retried}, {other})")).await;
    let claimed = avoiding(&["slow", "lobby"]).run(&world.pool).await;
    let mut ids = claimed.ids();
    ids.sort_unstable();
    assert_eq!(ids, [fine, other]);
    assert_eq!(passed(&claimed), None, "it has looked at all that is due");
    let mut rest = Claim::default().run(&world.pool).await.ids();
    rest.sort_unstable();
    assert_eq!(rest, [slow, lobby, retried]);
}

#[tokio::test]
async fn a_claim_reads_a_bounded_number_of_messages_and_the_next_one_continues() {
    let world = world().await;
    insert_to(&world, "slow", MOST_LOOKED_AT + 100).await;
    insert_to(&world, "fine", 3).await;
    let mut claim = avoiding(&["slow"]);
    let first = claim.run(&world.pool).await;
    assert!(first.messages.is_empty());
    // The position behind the messages that the claim has read.
    let due_at = world.row(1).await.due_at;
    let passed_to = passed(&first).expect("a place");
    assert_eq!(passed_to, (due_at, MOST_LOOKED_AT + 1));

    claim.first_after = (passed_to.0.to_string(), passed_to.1);
    let second = claim.run(&world.pool).await;
    let destinations = second.messages.iter();
    let destinations = destinations.map(|message| message.destination.as_deref());
    assert!(destinations.eq([Some("fine"); 3]), "{second:?}");
    assert_eq!(passed(&second), None, "there is nothing after them");
    assert_eq!(world.count("claim_id is not null").await, 3);
}

#[tokio::test]
async fn a_claim_that_has_filled_its_slots_passed_over_nothing() {
    let world = world().await;
    insert_to(&world, "fine", 20).await;
    insert_to(&world, "slow", MOST_LOOKED_AT).await;
    let claimed = avoiding(&["slow"]).run(&world.pool).await;
    assert_eq!(claimed.messages.len(), 10);
    assert_eq!(passed(&claimed), None);
    // With fewer messages than slots, it stopped at a place.
    let mut claim = avoiding(&["slow"]);
    claim.max_messages = 20;
    let claimed = claim.run(&world.pool).await;
    assert_eq!(claimed.messages.len(), 10);
    let due_at = world.row(21).await.due_at;
    assert_eq!(passed(&claimed), Some((due_at, 10 + MOST_LOOKED_AT + 1)));
}

/// Without first attempts, retries get all slots. A position after retries that the limit of slots had cut off would hide
/// these until the next full scan.
#[tokio::test]
async fn a_claim_that_has_filled_its_slots_with_retries_hides_no_retry() {
    let world = world().await;
    insert_to(&world, "fine", MOST_LOOKED_AT + 100).await;
    make_retries(&world, "true").await;
    let claimed = avoiding(&["slow"]).run(&world.pool).await;
    assert_eq!(claimed.messages.len(), 10);
    assert_eq!(claimed.lane.retry_passed_id, None);
}

#[tokio::test]
async fn a_claim_that_avoids_nothing_passes_over_nothing() {
    let world = world().await;
    insert_to(&world, "any", MOST_LOOKED_AT + 100).await;
    let claimed = avoiding(&[]).run(&world.pool).await;
    assert_eq!((claimed.messages.len(), passed(&claimed)), (10, None));
}
