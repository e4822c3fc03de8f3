//! `signaling.cancel`.

use serde_json::json;

use super::attempt_lines;
use harness::{World, assert_contains, peer};

#[tokio::test]
async fn a_pending_message_can_be_cancelled_once_and_is_never_called() {
    let world = World::new().await;
    let soon = world.time_in(200).await;
    let first_attempt = world.insert(peer(json!({"due_at": soon}))).await;
    let retry = world.insert(peer(json!({"due_at": soon}))).await;
    world
        .set_messages(&format!(
            "sent_at = now(), uncharged = 1 where id = {retry}"
        ))
        .await;
    for id in [first_attempt, retry] {
        let cancel = format!("select signaling.cancel({id})");
        assert!(world.ask::<bool>(&cancel).await);
        assert!(!world.ask::<bool>(&cancel).await);
        let row = world.row(id).await;
        assert_eq!(row.status, "cancelled");
        assert!(row.finished_at.is_some());
    }

    let later = world.time_in(400).await;
    let _worker = world.worker().start();
    world.deliver(json!({"due_at": later})).await;
    assert_eq!(world.seen().calls, 1);
    assert_eq!(world.count("status = 'cancelled'").await, 2);
}

#[tokio::test]
async fn a_message_that_is_being_sent_can_not_be_cancelled() {
    let world = World::new().await;
    world.set_faults(&["slow=1s"]);
    let id = world.insert(peer(json!({}))).await;
    let _worker = world.worker().start();
    world.until_accepted(1).await;
    let cancelled: bool = world.ask(&format!("select signaling.cancel({id})")).await;
    assert!(!cancelled);
    assert_eq!(world.until_final(id).await.status, "message_sent");
}

#[tokio::test]
async fn a_cancelled_message_whose_worker_died_logs_the_attempt_that_may_have_been() {
    let world = World::new().await;
    let id = world.insert(peer(json!({}))).await;
    let changes = "claim_id = gen_random_uuid(), claimed_by = 'the dead one',
                   due_at = now() - interval '1 second'";
    world.set_messages(changes).await;
    let cancelled: bool = world.ask(&format!("select signaling.cancel({id})")).await;
    assert!(cancelled);
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("cancelled", 1));
    let error = row.error.expect("an error");
    assert_contains(&error, &["the worker that had this message"]);
    let lost = "1 lost worker charged the dead one";
    assert_eq!(attempt_lines(&world, id).await, [lost]);
}
