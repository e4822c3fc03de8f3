//! `signaling.claim`: messages whose worker never recorded, and messages whose time is over.

use serde_json::{Value, json};

use super::{Claim, Claimed, attempt_lines, world};
use harness::{World, peer};

/// A message whose worker died, and whose lease has ended.
async fn lost(world: &World, columns: Value) -> (i64, Claimed) {
    let id = world.insert(peer(columns)).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.ids(), [id]);
    world.end_leases().await;
    let claimed_by = format!("claimed_by = 'the dead one' where id = {id}");
    world.set_messages(&claimed_by).await;
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
    let lost = "1 lost worker charged the dead one";
    assert_eq!(attempt_lines(&world, id).await, [lost]);
    assert_eq!(world.attempts(id).await[0].sent_at, None);
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
    let error = row.error.expect("an error");
    assert!(error.contains("whether it was called"), "{error}");
    assert_eq!(world.attempts(id).await[0].outcome, "lost");
}

#[tokio::test]
async fn a_lost_message_without_attempts_left_ends_as_failed_without_another_call() {
    let world = world().await;
    let (id, _) = lost(&world, json!({"max_attempts": 2})).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [id]);
    world.end_leases().await;
    let last = Claim::default().run(&world.pool).await;
    assert!(last.messages.is_empty());
    assert_eq!(last.lane.failed, 1);
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("failed", 2));
    let error = row.error.expect("an error");
    assert!(error.contains("whether it was called"), "{error}");
    let attempts = [
        "1 lost worker charged the dead one",
        "2 lost worker charged tester",
    ];
    assert_eq!(attempt_lines(&world, id).await, attempts);
}

#[tokio::test]
async fn a_message_whose_time_is_over_ends_as_expired_without_an_attempt() {
    let world = world().await;
    let past = world.time_in(-1_000).await;
    let id = world.insert(peer(json!({"expires_at": past}))).await;
    let tried = world.insert(peer(json!({"expires_at": past}))).await;
    let changes = format!("sent_at = now(), attempts = 1, error = 'HTTP 500' where id = {tried}");
    world.set_messages(&changes).await;
    let next_slot_at: time::OffsetDateTime = world.lane("next_slot_at").await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.messages.is_empty());
    assert_eq!((claimed.lane.unknown, claimed.lane.expired), (0, 2));
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("expired", 0));
    assert_eq!(row.error.as_deref(), Some("not sent before its expires_at"));
    let row = world.row(tried).await;
    assert_eq!((&*row.status, row.attempts), ("expired", 1));
    let error = row.error.as_deref();
    assert_eq!(error, Some("HTTP 500"), "the error of its attempt stays");
    for id in [id, tried] {
        assert!(world.attempts(id).await.is_empty(), "{id}");
    }
    let found: time::OffsetDateTime = world.lane("next_slot_at").await;
    assert_eq!(found, next_slot_at, "they take no slot");
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
