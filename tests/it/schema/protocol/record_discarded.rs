//! `signaling.record`: records that come late, twice, or for a message that another session has.

use uuid::Uuid;

use super::record::{Record, record};
use super::{Claim, claimed_message, lock_messages, world};

#[tokio::test]
async fn a_record_of_another_claim_or_of_a_message_that_is_gone_is_discarded() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let foreign = Record {
        claim_id: Uuid::new_v4(),
        ..Record::transient(id, &claim)
    };
    let nowhere = Record::accepted(id + 1, &claim);
    let found = record(&world.pool, &[foreign, nowhere.clone()]).await;
    assert_eq!(found, ["discarded", "discarded"]);
    assert_eq!(world.row(id).await.claim_id, Some(claim.id));
    assert!(world.attempts(id).await.is_empty());
    // The others are written.
    let found = record(&world.pool, &[nowhere, Record::accepted(id, &claim)]).await;
    assert_eq!(found, ["discarded", "recorded"]);
    assert_eq!(world.row(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_record_is_discarded_once_another_claim_has_the_message() {
    let world = world().await;
    let (id, late) = claimed_message(&world).await;
    world.end_leases().await;
    let claim = Claim::default().run(&world.pool).await;
    assert_eq!(claim.ids(), [id]);
    let results = record(&world.pool, &[Record::accepted(id, &late)]).await;
    assert_eq!(results, ["discarded"]);
    assert_eq!(world.row(id).await.status, "pending");
}

#[tokio::test]
async fn a_record_is_written_after_its_lease_while_no_other_claim_has_the_message() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    world.end_leases().await;
    let results = record(&world.pool, &[Record::accepted(id, &claim)]).await;
    assert_eq!(results, ["recorded"]);
    assert_eq!(world.row(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_final_record_that_is_written_again_is_recorded_and_changes_nothing() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let failed = Record::failed(id, &claim);
    let found = record(&world.pool, std::slice::from_ref(&failed)).await;
    assert_eq!(found, ["recorded"]);
    let before = world.row(id).await;
    assert_eq!(record(&world.pool, &[failed]).await, ["recorded"]);
    let after = world.row(id).await;
    let found = (after.attempts, after.finished_at);
    assert_eq!(found, (before.attempts, before.finished_at));
    assert_eq!(world.attempts(id).await.len(), 1);
    // Another status did not end the message.
    let other = Record::accepted(id, &claim);
    assert_eq!(record(&world.pool, &[other]).await, ["discarded"]);
}

#[tokio::test]
async fn a_record_that_went_back_is_not_charged_twice() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let back = Record::transient(id, &claim);
    let found = record(&world.pool, std::slice::from_ref(&back)).await;
    assert_eq!(found, ["recorded"]);
    assert_eq!(record(&world.pool, &[back]).await, ["discarded"]);
    assert_eq!(world.row(id).await.attempts, 1);
    assert_eq!(world.attempts(id).await.len(), 1);
}

#[tokio::test]
async fn a_locked_message_holds_up_no_other_record() {
    let world = world().await;
    world.insert_many(3).await;
    let claim = Claim::default().run(&world.pool).await;
    let lock = lock_messages(&world, "id = 2").await;
    let records = [1, 2, 3].map(|id| Record::transient(id, &claim));
    let found = record(&world.pool, &records).await;
    assert_eq!(found, ["recorded", "locked", "recorded"]);
    assert!(world.attempts(2).await.is_empty());
    lock.commit().await.expect("unlocked");
    assert_eq!(record(&world.pool, &records[1..2]).await, ["recorded"]);
    assert_eq!(world.attempts(2).await.len(), 1);
}

#[tokio::test]
async fn a_cancelled_message_discards_the_record() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    world.end_leases().await;
    let cancelled: bool = world.ask(&format!("select signaling.cancel({id})")).await;
    assert!(cancelled);
    let results = record(&world.pool, &[Record::accepted(id, &claim)]).await;
    assert_eq!(results, ["discarded"]);
    assert_eq!(world.row(id).await.status, "cancelled");
}

/// Another session changes the last message all the time: also between the snapshot of a record and its lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_message_that_another_session_changes_is_never_refused() {
    const MESSAGES: i64 = 200;
    let world = world().await;
    let (_, claim) = claimed_message(&world).await;
    for last in (1..=20).map(|round| 1 + round * MESSAGES) {
        world.insert_many(200).await;
        world
            .execute(&format!(
                "update signaling.outbox set claim_id = '{}', due_at = due_at + interval '1 hour' where status = 'pending'",
                claim.id
            ))
            .await;
        let change = format!(
            "do $$ begin
                 while exists (select from signaling.outbox where id = {last} and status = 'pending') loop
                     update signaling.outbox set due_at = due_at + interval '1 second' where id = {last} and status = 'pending';
                     commit;
                 end loop;
             end $$"
        );
        let records: Vec<_> = (last - MESSAGES + 1..=last)
            .map(|id| Record::accepted(id, &claim))
            .collect();
        let recording = async {
            let changed = format!(
                "select due_at > now() + interval '61 minutes' from signaling.outbox where id = {last}"
            );
            world.until_true(&changed).await;
            loop {
                let results = record(&world.pool, &records).await;
                match results.last().map(String::as_str) {
                    Some("recorded") => break,
                    result => assert_eq!(result, Some("locked")),
                }
            }
        };
        tokio::join!(world.execute(&change), recording);
    }
}
