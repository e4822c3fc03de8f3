//! `signaling.claim`: scan positions, and when the next messages are due.

use serde_json::json;
use time::OffsetDateTime;

use super::{Claim, INFINITY, make_retries, world};
use harness::{World, peer};

/// Three messages that were due at the same time, two of a time after that; and that time.
async fn five_messages(world: &World) -> (Vec<i64>, String) {
    let (early, late) = (world.time_in(-2_000).await, world.time_in(-1_000).await);
    let mut ids = Vec::new();
    for due_at in [&early, &early, &early, &late, &late] {
        ids.push(world.insert(peer(json!({"due_at": due_at}))).await);
    }
    (ids, early)
}

#[tokio::test]
async fn a_claim_passes_over_messages_up_to_the_scan_position_of_their_kind() {
    let end = (INFINITY.to_owned(), 0);
    for are_retries in [false, true] {
        let world = world().await;
        let (ids, early) = five_messages(&world).await;
        let position = (early, ids[1]);
        let mut claim = Claim::default();
        (claim.first_after, claim.retry_after) = if are_retries {
            make_retries(&world, "true").await;
            (end.clone(), position)
        } else {
            (position, end.clone())
        };
        let found = claim.run(&world.pool).await.ids();
        assert_eq!(found, ids[2..], "retries: {are_retries}");
        let rest = Claim::default().run(&world.pool).await.ids();
        assert_eq!(rest, ids[..2], "retries: {are_retries}");
    }
}

#[tokio::test]
async fn a_claim_without_more_due_messages_returns_the_next_due_time() {
    let world = world().await;
    let later = world
        .insert(peer(json!({"due_at": world.time_in(60_000).await})))
        .await;
    world
        .insert(peer(json!({"due_at": world.time_in(90_000).await})))
        .await;
    world.insert_many(2).await;
    let due_at = world.row(later).await.due_at;
    // While more may be due, there is nothing to wait for.
    let full = Claim::of_at_most(2).run(&world.pool).await;
    assert_eq!((full.messages.len(), full.lane.next_due_at), (2, None));
    let rest = Claim::default().run(&world.pool).await;
    let found = (rest.messages.len(), rest.lane.next_due_at);
    assert_eq!(found, (0, Some(due_at)));
    world.execute("select signaling.pause('default')").await;
    let paused = Claim::default().run(&world.pool).await;
    assert_eq!(paused.lane.next_due_at, Some(due_at));
}

#[tokio::test]
async fn next_due_at_tells_of_retries_within_the_poll_interval_only() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    make_retries(&world, "true").await;
    let next_due_at = async |due_in: &str| -> Option<OffsetDateTime> {
        let changes = format!("due_at = clock_timestamp() + interval '{due_in}'");
        world.set_messages(&changes).await;
        let claimed = Claim::default().run(&world.pool).await;
        assert!(claimed.messages.is_empty());
        claimed.lane.next_due_at
    };
    assert_eq!(next_due_at("60 seconds").await, None);
    let soon = next_due_at("1900 milliseconds").await;
    assert_eq!(soon, Some(world.row(id).await.due_at));
}
