//! `signaling.claim`: how many messages a claim takes, and the slots that it gives them.

use serde_json::json;
use time::Duration;

use super::{Claim, LEASE, NOT_HELD, SPACING, lock_messages, now, world};
use harness::{execute, peer};

#[tokio::test]
async fn slots_begin_after_the_lookahead_and_fill_the_horizon() {
    let world = world().await;
    // A claim gives out no slot of the past.
    assert!(world.lane::<bool>("next_slot_at = 'epoch'").await);
    world.insert_many(60).await;
    let claimed = Claim::default().run(&world.pool).await;
    let first = claimed.lane.at + Duration::milliseconds(200);
    assert_eq!(claimed.lane.slots, 50);
    assert_eq!(claimed.messages.len(), 50);
    for (place, message) in (0..).zip(&claimed.messages) {
        assert_eq!(message.slot_at, first + SPACING * place, "{place}");
    }
    assert_eq!(claimed.lane.next_slot_at, first + SPACING * 50);
    assert_eq!(claimed.lane.hold, None);
    let found: time::OffsetDateTime = world.lane("next_slot_at").await;
    assert_eq!(found, claimed.lane.next_slot_at);
}

#[tokio::test]
async fn claims_never_share_a_slot() {
    let world = world().await;
    world.insert_many(100).await;
    let first = Claim::of_at_most(20).run(&world.pool).await;
    assert_eq!((first.lane.slots, first.messages.len()), (20, 20));
    let second = Claim::default().run(&world.pool).await;
    let earliest = second.lane.at + Duration::milliseconds(200);
    assert_eq!(
        second.messages[0].slot_at,
        first.lane.next_slot_at.max(earliest)
    );
    let last = second.messages.last().expect("messages").slot_at;
    let horizon_ends = earliest + Duration::milliseconds(500);
    assert!(last < horizon_ends && last + SPACING >= horizon_ends);
}

#[tokio::test]
async fn a_lane_advances_by_the_messages_that_a_claim_took() {
    let world = world().await;
    world.insert_many(3).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!((claimed.lane.slots, claimed.messages.len()), (50, 3));
    assert_eq!(
        claimed.lane.next_slot_at,
        claimed.messages[0].slot_at + SPACING * 3
    );
    let empty = Claim::default().run(&world.pool).await;
    assert!(empty.messages.is_empty());
    assert_eq!(
        world.lane::<time::OffsetDateTime>("next_slot_at").await,
        claimed.lane.next_slot_at,
        "an empty claim takes no slot"
    );
}

#[tokio::test]
async fn a_claim_that_waited_for_the_lane_reads_the_clock_after_the_wait() {
    let world = world().await;
    world.insert_many(10).await;
    let mut other = world.connect().await;
    let sql = "begin; select from signaling.lane for no key update; select pg_backend_pid()";
    execute(&mut other, sql).await;
    let claim = Claim::of_at_most(5);
    let waiting = claim.run(&world.pool);
    let releasing = async {
        world
            .until_true(
                "select exists (select from pg_stat_activity
                                where datname = current_database() and wait_event_type = 'Lock')",
            )
            .await;
        let before = now(&world).await;
        let statement = "update signaling.lane
                         set next_slot_at = clock_timestamp() + interval '300 milliseconds'; commit";
        execute(&mut other, statement).await;
        before
    };
    let (claimed, before) = tokio::join!(waiting, releasing);
    assert!(claimed.lane.at > before);
    assert!(
        claimed.messages[0].slot_at > before + Duration::milliseconds(300),
        "slots begin after those that were taken during the wait"
    );
}

#[tokio::test]
async fn messages_get_their_slots_in_the_order_in_which_they_are_due() {
    let world = world().await;
    let mut ids = Vec::new();
    for ms in [-1_000, -3_000, -2_000] {
        let due_at = world.time_in(ms).await;
        for _ in 0..2 {
            ids.push(world.insert(peer(json!({"due_at": due_at}))).await);
        }
    }
    let oldest = Claim::of_at_most(3).run(&world.pool).await;
    assert_eq!(oldest.ids(), [ids[2], ids[3], ids[4]]);
    let rest = Claim::default().run(&world.pool).await;
    assert_eq!(rest.ids(), [ids[5], ids[0], ids[1]]);
}

#[tokio::test]
async fn a_claimed_message_belongs_to_the_claim_until_the_lease_ends() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    let before = world.row(id).await;
    let claimed = Claim::default().run(&world.pool).await;
    let row = world.row(id).await;
    assert_eq!(row.claim_id, Some(claimed.id));
    assert_eq!(row.claimed_by.as_deref(), Some("tester"));
    assert_eq!(row.due_at, claimed.lane.at + LEASE);
    assert_eq!(row.attempts, 0);
    let message = &claimed.messages[0];
    assert_eq!((message.attempts, message.is_retry), (0, false));
    assert_eq!(message.original_due_at, before.due_at);
    assert!(Claim::default().run(&world.pool).await.messages.is_empty());
}

#[tokio::test]
async fn a_claim_takes_messages_of_its_app_alone() {
    let world = world().await;
    world.insert(peer(json!({"app": "other"}))).await;
    let id = world.insert(peer(json!({}))).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [id]);
}

#[tokio::test]
async fn a_claim_passes_over_messages_that_are_locked() {
    let world = world().await;
    let locked = world.insert(peer(json!({}))).await;
    let free = world.insert(peer(json!({}))).await;
    let _lock = lock_messages(&world, &format!("id = {locked}")).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [free]);
}

#[tokio::test]
async fn a_paused_lane_gives_out_no_slot() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    world.execute("select signaling.pause('default')").await;
    // A pause goes before a hold.
    super::hold(&world).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.has_no_slot(), "{claimed:?}");
    assert_eq!(claimed.lane.hold.as_deref(), Some("paused"));
    assert_eq!(world.row(id).await.claim_id, None);
    world.execute("select signaling.resume('default')").await;
    world.set_lane(NOT_HELD).await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [id]);
}

#[tokio::test]
async fn a_throttled_lane_gives_out_slots_at_its_rate_and_says_so() {
    let world = world().await;
    world.insert_many(60).await;
    let first = Claim::of_at_most(1).run(&world.pool).await;
    assert_eq!(first.lane.throttled_per_s, None);
    // A rate that was cut to 20 slots a second, and does not climb for an hour.
    world
        .set_lane("rate_per_s = 20, rate_at = clock_timestamp() + interval '1 hour'")
        .await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.lane.throttled_per_s, Some(20.0));
    assert!(claimed.messages.len() <= 10, "{}", claimed.messages.len());
    let spacing = claimed.messages[1].slot_at - claimed.messages[0].slot_at;
    assert_eq!(spacing, Duration::milliseconds(50));
}

#[tokio::test]
async fn a_claim_for_an_app_without_a_lane_fails() {
    let world = world().await;
    let claim = Claim {
        app: "other",
        ..Claim::default()
    };
    let error = claim.refusal(&world.pool).await;
    assert_eq!(error.code(), "P0002");
    assert_eq!(error.message(), "the app other has no lane");
}
