//! `signaling.claim`: messages whose worker never recorded, and messages whose time is over.

use serde_json::{Value, json};

use super::{Claim, Claimed, world};
use testkit::{World, peer};

/// A message that was claimed, and whose lease has ended.
async fn lost(world: &World, columns: Value) -> (i64, Claimed) {
    let id = world.insert(peer(columns)).await;
    let claim = Claim {
        claimed_by: "the dead one",
        ..Claim::default()
    };
    let claimed = claim.run(&world.pool).await;
    assert_eq!(claimed.ids(), [id]);
    let ended = "due_at = clock_timestamp() - interval '1 second'";
    world
        .set_messages(&format!("{ended} where id = {id}"))
        .await;
    (id, claimed)
}

#[tokio::test]
async fn a_lost_message_that_may_be_repeated_is_claimed_again() {
    let world = world().await;
    let (id, _) = lost(&world, json!({})).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.ids(), [id]);
    let message = &claimed.messages[0];
    assert!(message.is_retry);
    assert_eq!(message.attempts, 1, "the lost worker may have called");
    let row = world.row(id).await;
    assert_eq!((row.attempts, row.claim_id), (1, Some(claimed.id)));
    assert_eq!(row.claimed_by.as_deref(), Some("tester"));
    let attempts = world.attempts(id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].number, &*attempts[0].outcome), (1, "lost"));
    assert_eq!(attempts[0].claimed_by.as_deref(), Some("the dead one"));
    let found = (attempts[0].fault.as_deref(), attempts[0].charged);
    assert_eq!(found, (Some("worker"), true));
    assert_eq!(attempts[0].sent_at, None);
}

#[tokio::test]
async fn a_lost_message_that_may_be_sent_once_only_ends_as_unknown() {
    let world = world().await;
    let (id, lost_claim) = lost(&world, json!({"at_most_once": true})).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.messages.is_empty());
    assert_eq!((claimed.lane.unknown, claimed.lane.expired), (1, 0));
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("unknown", 1));
    assert_eq!(row.finished_at, Some(claimed.lane.at));
    assert_eq!(row.claim_id, Some(lost_claim.id));
    assert!(
        row.error
            .expect("an error")
            .contains("whether it was called")
    );
    assert_eq!(world.attempts(id).await[0].outcome, "lost");
}

#[tokio::test]
async fn a_message_whose_time_is_over_ends_as_expired_without_an_attempt() {
    let world = world().await;
    let past = world.time_in(-1_000).await;
    let id = world.insert(peer(json!({"expires_at": past}))).await;
    let next_slot_at: time::OffsetDateTime = world.lane("next_slot_at").await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.messages.is_empty());
    assert_eq!((claimed.lane.unknown, claimed.lane.expired), (0, 1));
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("expired", 0));
    assert_eq!(row.error.as_deref(), Some("not sent before its expires_at"));
    assert!(world.attempts(id).await.is_empty());
    let found: time::OffsetDateTime = world.lane("next_slot_at").await;
    assert_eq!(found, next_slot_at, "it takes no slot");
}

#[tokio::test]
async fn a_lost_message_whose_time_is_over_ends_as_expired_and_logs_the_attempt() {
    let world = world().await;
    let soon = world.time_in(60_000).await;
    let (id, _) = lost(&world, json!({"expires_at": soon})).await;
    world
        .set_messages("expires_at = now() - interval '1 second'")
        .await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!((claimed.lane.unknown, claimed.lane.expired), (0, 1));
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("expired", 1));
    assert_eq!(world.attempts(id).await[0].outcome, "lost");
}

#[tokio::test]
async fn the_error_of_an_earlier_attempt_stays_when_a_message_expires() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    let changes = "sent_at = now(), attempts = 1, error = 'HTTP 500', expires_at = now() - interval '1 second'";
    world.set_messages(changes).await;
    Claim::default().run(&world.pool).await;
    let row = world.row(id).await;
    assert_eq!(row.status, "expired");
    assert_eq!(row.error.as_deref(), Some("HTTP 500"));
}

#[tokio::test]
async fn a_lease_that_ended_lately_does_not_count_as_lost_yet() {
    let world = world().await;
    let (id, first) = lost(&world, json!({})).await;
    let claim = Claim {
        ended_before: world.time_in(-2_000).await,
        ..Claim::default()
    };
    assert!(claim.run(&world.pool).await.messages.is_empty());
    assert_eq!(world.row(id).await.claim_id, Some(first.id));
    let claim = Claim {
        ended_before: world.time_in(0).await,
        ..Claim::default()
    };
    assert_eq!(claim.run(&world.pool).await.ids(), [id]);
}

#[tokio::test]
async fn messages_that_end_in_a_claim_count_among_those_that_it_took() {
    let world = world().await;
    let past = world.time_in(-1_000).await;
    for _ in 0..3 {
        world.insert(peer(json!({"expires_at": past}))).await;
    }
    world.insert_many(3).await;
    let claimed = Claim::of_at_most(4).run(&world.pool).await;
    assert_eq!((claimed.lane.expired, claimed.messages.len()), (3, 1));
    let first_slot_at = claimed.messages[0].slot_at;
    assert_eq!(claimed.lane.next_slot_at, first_slot_at + super::SPACING);
    assert_eq!(claimed.lane.next_due_at, None, "more may be due");
}
