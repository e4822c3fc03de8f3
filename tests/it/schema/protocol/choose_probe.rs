//! `signaling.choose_probe`, by the claims of a held lane: which message is the next probe.

use serde_json::{Value, json};

use super::{Claim, end_pause, hold, lock_messages, make_retries, world};
use harness::{World, channel, peer};

/// Inserts a message that has been due for so many seconds.
async fn insert_due(world: &World, due_for_s: i32, mut message: Value) -> i64 {
    message["due_at"] = json!(world.time_in(-1_000 * due_for_s).await);
    world.insert(message).await
}

/// Claims the next probe and makes it fail. Its message is then a retry that is due in an hour.
async fn failing_probe(world: &World) -> Option<i64> {
    let probe = Claim::default().run(&world.pool).await;
    let id = *probe.ids().first()?;
    world
        .execute(&format!(
            "update signaling.outbox set claim_id = null, sent_at = now(), due_at = now() + interval '1 hour' where id = {id};
             select signaling.hold('default', 'unavailable', 'HTTP 500', '{}')",
            probe.id
        ))
        .await;
    end_pause(world).await;
    Some(id)
}

async fn failing_probes(world: &World, count: usize) -> Vec<i64> {
    let mut probes = Vec::new();
    for _ in 0..count {
        probes.extend(failing_probe(world).await);
    }
    probes
}

#[tokio::test]
async fn probes_alternate_first_attempts_and_retries_and_the_oldest_and_the_newest() {
    let world = world().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let message = peer(json!({"destination": format!("user-{number}")}));
        ids.push(insert_due(&world, 100 - number, message).await);
    }
    // Retries have the even places, first attempts the odd ones.
    let (retries, firsts): (Vec<i64>, Vec<i64>) = ids.iter().partition(|id| *id % 2 == 0);
    make_retries(&world, "id % 2 = 0").await;
    hold(&world).await;
    // The hold itself counts as the first failed call, so the first probe is a retry.
    let expected = [
        retries[0], firsts[5], retries[5], firsts[0], retries[1], firsts[4], retries[4], firsts[1],
    ];
    assert_eq!(failing_probes(&world, 8).await, expected);
}

#[tokio::test]
async fn each_probe_goes_to_another_destination_than_the_last_one() {
    let world = world().await;
    // The oldest and the newest are all for one destination.
    for _ in 0..3 {
        insert_due(&world, 100, peer(json!({"destination": "dead"}))).await;
    }
    let alive = insert_due(&world, 50, peer(json!({"destination": "alive"}))).await;
    let lobby = insert_due(&world, 50, channel(json!({"channel_name": "lobby"}))).await;
    for _ in 0..3 {
        insert_due(&world, 1, peer(json!({"destination": "dead"}))).await;
    }
    hold(&world).await;
    let mut targets = Vec::new();
    for _ in 0..4 {
        failing_probe(&world).await.expect("a probe");
        targets.push(world.lane::<String>("probe_target").await);
    }
    assert_eq!(targets[0], "dead");
    assert!(
        targets.windows(2).all(|pair| pair[0] != pair[1]),
        "{targets:?}"
    );
    let others = world
        .count(&format!("id in ({alive}, {lobby}) and sent_at is not null"))
        .await;
    assert_eq!(others, 2, "{targets:?}");
}

#[tokio::test]
async fn the_only_destination_is_probed_again() {
    let world = world().await;
    for _ in 0..3 {
        insert_due(&world, 1, peer(json!({}))).await;
    }
    hold(&world).await;
    assert_eq!(failing_probes(&world, 3).await.len(), 3);
    assert_eq!(failing_probe(&world).await, None, "none is due any more");
}

#[tokio::test]
async fn a_message_that_may_be_sent_once_only_probes_where_there_is_no_other() {
    let world = world().await;
    let mut once = Vec::new();
    for number in 0..2 {
        let message = peer(json!({"destination": format!("once-{number}"), "at_most_once": true}));
        once.push(insert_due(&world, 100 - number, message).await);
    }
    let mut often = Vec::new();
    for number in 0..3 {
        let message = peer(json!({"destination": format!("often-{number}")}));
        often.push(insert_due(&world, 50, message).await);
    }
    // A retry that may be repeated comes before a first attempt that may not, whichever is wanted.
    make_retries(&world, &format!("id = {}", often[2])).await;
    hold(&world).await;
    let mut probes = failing_probes(&world, 5).await;
    probes[..3].sort_unstable();
    probes[3..].sort_unstable();
    assert_eq!(probes, [often, once].concat());
}

#[tokio::test]
async fn another_destination_is_worth_more_than_a_message_that_may_be_repeated() {
    let world = world().await;
    let first = insert_due(&world, 100, peer(json!({}))).await;
    let last = insert_due(&world, 99, peer(json!({}))).await;
    let other = peer(json!({"destination": "carol", "at_most_once": true}));
    let once = insert_due(&world, 50, other).await;
    hold(&world).await;
    assert_eq!(failing_probes(&world, 3).await, [first, once, last]);
}

#[tokio::test]
async fn a_kind_that_has_no_message_leaves_its_turn_to_the_other() {
    for are_retries in [false, true] {
        let world = world().await;
        world.insert_many(4).await;
        if are_retries {
            make_retries(&world, "true").await;
        }
        hold(&world).await;
        assert_eq!(failing_probes(&world, 4).await.len(), 4, "{are_retries}");
    }
}

#[tokio::test]
async fn a_message_that_is_not_due_or_is_claimed_does_not_probe() {
    let world = world().await;
    world.insert_many(3).await;
    // The lease of the third one has ended, but its worker may still record.
    world
        .execute(
            "update signaling.outbox set due_at = now() + interval '1 hour' where id <= 2;
             update signaling.outbox set sent_at = now() where id = 2;
             update signaling.outbox set claim_id = gen_random_uuid(), due_at = now() - interval '1 second' where id = 3",
        )
        .await;
    hold(&world).await;
    let claim = Claim {
        ended_before: world.time_in(-60_000).await,
        ..Claim::default()
    };
    let claimed = claim.run(&world.pool).await;
    assert_eq!((claimed.lane.slots, claimed.messages.len()), (1, 0));
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.ids(), [3], "now it is lost");
}

#[tokio::test]
async fn a_probe_passes_over_messages_that_are_locked() {
    let world = world().await;
    world.insert_many(2).await;
    hold(&world).await;
    let lock = lock_messages(&world, "id = 1").await;
    assert_eq!(failing_probe(&world).await, Some(2));
    lock.rollback().await.expect("unlocked");
    assert_eq!(failing_probe(&world).await, Some(1));
}

#[tokio::test]
async fn a_probe_is_chosen_before_the_scan_position_and_among_avoided_destinations_too() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    hold(&world).await;
    let claim = Claim {
        first_after: ("infinity".into(), 0),
        retry_after: ("infinity".into(), 0),
        avoided: vec!["bob"],
        ..Claim::default()
    };
    assert_eq!(claim.run(&world.pool).await.ids(), [id]);
}
