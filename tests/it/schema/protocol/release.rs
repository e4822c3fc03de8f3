//! `signaling.release`: claims that made no attempt.

use uuid::Uuid;

use super::{Claim, claimed_message, hold, lock_messages, world};
use harness::World;

/// Gives claims of the default app back, and returns those that had messages.
async fn release(world: &World, claims: &[Uuid]) -> Vec<Uuid> {
    sqlx::query_scalar("select * from signaling.release('default', $1)")
        .bind(claims)
        .fetch_all(&world.pool)
        .await
        .expect("released")
}

#[tokio::test]
async fn released_messages_are_due_at_once_as_first_attempts() {
    let world = world().await;
    world.insert_many(5).await;
    let mut claims = Vec::new();
    for _ in 0..2 {
        claims.push(Claim::of_at_most(2).run(&world.pool).await.id);
    }
    let released = release(&world, &[claims[0], Uuid::new_v4()]).await;
    assert_eq!(released, claims[..1]);
    assert_eq!(world.count("claim_id is null").await, 3);
    let is_released =
        "claim_id is null and due_at <= now() and attempts = 0 and claimed_by is null";
    assert_eq!(world.count(is_released).await, 3);
    // The first one has no messages any more.
    assert_eq!(release(&world, &claims).await, claims[1..]);
    let again = Claim::default().run(&world.pool).await;
    assert_eq!((again.messages.len(), again.retries()), (5, 0));
}

#[tokio::test]
async fn a_released_message_is_due_since_its_insert() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    release(&world, &[claim.id]).await;
    let row = world.row(id).await;
    assert_eq!(row.due_at, row.created_at);
    // An insert that a producer has dated into the future is due now.
    world
        .set_messages("created_at = now() + interval '1 hour'")
        .await;
    let claim = Claim::default().run(&world.pool).await;
    release(&world, &[claim.id]).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [id]);
}

#[tokio::test]
async fn a_message_that_is_lost_or_final_is_not_released() {
    for changes in [
        "due_at = now() - interval '1 second'",
        "status = 'failed', finished_at = now()",
    ] {
        let world = world().await;
        let (_, claim) = claimed_message(&world).await;
        world.set_messages(changes).await;
        let row = async || {
            world
                .column::<String>("select outbox::text from signaling.outbox")
                .await
        };
        let before = row().await;
        assert!(release(&world, &[claim.id]).await.is_empty(), "{changes}");
        assert_eq!(row().await, before);
    }
}

#[tokio::test]
async fn messages_that_are_locked_are_released_another_time() {
    let world = world().await;
    world.insert_many(2).await;
    let claim = Claim::default().run(&world.pool).await;
    let lock = lock_messages(&world, "id = 1").await;
    assert_eq!(release(&world, &[claim.id]).await, [claim.id]);
    assert_eq!(world.count("claim_id is null").await, 1);
    lock.commit().await.expect("unlocked");
    assert_eq!(release(&world, &[claim.id]).await, [claim.id]);
    assert_eq!(world.count("claim_id is null").await, 2);
}

#[tokio::test]
async fn a_released_probe_lets_the_next_one_be_made_at_once() {
    let world = world().await;
    world.insert_many(2).await;
    hold(&world).await;
    let probe = Claim::default().run(&world.pool).await;
    assert_eq!(probe.messages.len(), 1);
    // Another claim is not the probe.
    assert!(release(&world, &[Uuid::new_v4()]).await.is_empty());
    assert!(world.lane::<bool>("hold_until > clock_timestamp()").await);
    assert_eq!(release(&world, &[probe.id]).await, [probe.id]);
    let may_probe = "hold_until <= clock_timestamp() and probe_claim_id is null";
    assert!(world.lane::<bool>(may_probe).await);
    assert_eq!(world.lane::<i32>("hold_probes").await, 1);
    assert_eq!(Claim::default().run(&world.pool).await.messages.len(), 1);
}
