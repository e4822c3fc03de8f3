//! `signaling.hold` and `signaling.release_hold`: a held lane, its probes and its pauses.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Claim, LEASE, NOT_HELD, end_pause, now, world};
use harness::World;

/// Holds the default app's lane, and returns the result.
async fn hold(world: &World, kind: &str, probe: Option<Uuid>) -> String {
    sqlx::query_scalar("select signaling.hold('default', $1, 'the reason', $2)")
        .bind(kind)
        .bind(probe)
        .fetch_one(&world.pool)
        .await
        .expect("held")
}

async fn release_hold(world: &World, probe: Uuid) -> bool {
    sqlx::query_scalar("select signaling.release_hold('default', $1)")
        .bind(probe)
        .fetch_one(&world.pool)
        .await
        .expect("an answer")
}

/// A lane with messages that is held, and whose pause is over.
async fn held_world() -> World {
    let world = world().await;
    world.insert_many(10).await;
    assert_eq!(hold(&world, "unavailable", None).await, "held");
    end_pause(&world).await;
    world
}

#[tokio::test]
async fn a_lane_is_held_once_however_many_attempts_fail_together() {
    let world = world().await;
    assert_eq!(hold(&world, "unavailable", None).await, "held");
    let since: OffsetDateTime = world.lane("hold_since").await;
    let until: OffsetDateTime = world.lane("hold_until").await;
    assert_eq!(until - since, Duration::seconds(1));
    for kind in ["unavailable", "unauthorized"] {
        assert_eq!(hold(&world, kind, None).await, "other");
    }
    let found: String = world.lane("hold || ': ' || hold_reason").await;
    assert_eq!(found, "unavailable: the reason");
    assert_eq!(world.lane::<OffsetDateTime>("hold_until").await, until);
    assert_eq!(world.lane::<i32>("hold_probes").await, 1);
}

#[tokio::test]
async fn a_held_lane_makes_one_probe_and_the_next_one_waits_for_the_lease() {
    let world = held_world().await;
    let probe = Claim::default().run(&world.pool).await;
    assert_eq!((probe.lane.slots, probe.messages.len()), (1, 1));
    assert_eq!(probe.lane.hold.as_deref(), Some("unavailable"));
    assert_eq!(world.lane::<Uuid>("probe_claim_id").await, probe.id);
    let lease_ends = probe.lane.at + LEASE;
    assert_eq!(world.lane::<OffsetDateTime>("hold_until").await, lease_ends);
    let next = Claim::default().run(&world.pool).await;
    assert!(next.has_no_slot(), "{next:?}");
    assert_eq!(next.lane.hold.as_deref(), Some("unavailable"));
    assert_eq!(next.lane.hold_until, Some(lease_ends));
}

#[tokio::test]
async fn a_held_lane_without_messages_makes_no_probe() {
    let world = world().await;
    hold(&world, "unavailable", None).await;
    end_pause(&world).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!((claimed.lane.slots, claimed.messages.len()), (1, 0));
    assert!(world.lane::<bool>("probe_claim_id is null").await);
}

#[tokio::test]
async fn each_failed_probe_doubles_the_pause_up_to_four_seconds() {
    let world = held_world().await;
    for expected in [2, 4, 4, 4] {
        let probe = Claim::default().run(&world.pool).await;
        assert_eq!(probe.messages.len(), 1);
        let before = now(&world).await;
        let found = hold(&world, "unavailable", Some(probe.id)).await;
        assert_eq!(found, "extended");
        let after = now(&world).await;
        let until: OffsetDateTime = world.lane("hold_until").await;
        let pause = Duration::seconds(expected);
        assert!(
            (before + pause..=after + pause).contains(&until),
            "{expected} s"
        );
        assert!(world.lane::<bool>("probe_claim_id is null").await);
        end_pause(&world).await;
    }
    assert_eq!(world.lane::<i32>("hold_probes").await, 5);
}

#[tokio::test]
async fn a_probe_counts_only_while_it_is_the_lanes() {
    let world = held_world().await;
    let late = Claim::default().run(&world.pool).await;
    // Its lease is over, and another probe is under way.
    end_pause(&world).await;
    let probe = Claim::default().run(&world.pool).await;
    let until: OffsetDateTime = world.lane("hold_until").await;
    assert_eq!(hold(&world, "unauthorized", Some(late.id)).await, "other");
    assert!(!release_hold(&world, late.id).await);
    assert_eq!(world.lane::<OffsetDateTime>("hold_until").await, until);
    assert_eq!(world.lane::<Uuid>("probe_claim_id").await, probe.id);
    assert_eq!(world.lane::<String>("hold").await, "unavailable");
}

#[tokio::test]
async fn a_failed_probe_may_change_why_the_lane_is_held() {
    let world = held_world().await;
    let since: OffsetDateTime = world.lane("hold_since").await;
    let probe = Claim::default().run(&world.pool).await;
    let found = hold(&world, "unauthorized", Some(probe.id)).await;
    assert_eq!(found, "extended");
    assert_eq!(world.lane::<String>("hold").await, "unauthorized");
    assert_eq!(world.lane::<OffsetDateTime>("hold_since").await, since);
}

#[tokio::test]
async fn a_probe_that_went_well_ends_the_hold_and_wakes_the_workers() {
    let world = held_world().await;
    let mut listener = super::listener(&world).await;
    let probe = Claim::default().run(&world.pool).await;
    assert!(release_hold(&world, probe.id).await);
    let woken = listener.recv().await.expect("a notification");
    assert_eq!(woken.payload(), "default");
    let has_no_probe = "probe_claim_id is null and probe_target is null";
    let is_over = "hold is null and hold_since is null and hold_until is null and hold_probes = 0";
    assert!(world.lane::<bool>(is_over).await);
    assert!(world.lane::<bool>(has_no_probe).await);
    assert!(!release_hold(&world, probe.id).await);
    assert_eq!(Claim::default().run(&world.pool).await.messages.len(), 9);
    assert!(world.lane::<bool>(has_no_probe).await, "it is not held");
}

#[tokio::test]
async fn a_lane_is_not_held_again_within_ten_seconds_of_its_last_hold() {
    let world = held_world().await;
    let probe = Claim::default().run(&world.pool).await;
    let before = now(&world).await;
    assert!(release_hold(&world, probe.id).await);
    let released_at: OffsetDateTime = world.lane("released_at").await;
    assert!((before..=now(&world).await).contains(&released_at));
    assert_eq!(hold(&world, "unavailable", None).await, "too_soon");
    assert!(world.lane::<bool>("hold is null").await);
    // A time in the future comes from before the clock was set back.
    for (released, result) in [("9 s", "too_soon"), ("10 s", "held"), ("-5 s", "held")] {
        let released = format!("released_at = clock_timestamp() - interval '{released}'");
        world.set_lane(&format!("{released}, {NOT_HELD}")).await;
        let found = hold(&world, "unauthorized", None).await;
        assert_eq!(found, result, "{released}");
    }
    let begins_anew = "hold_until - hold_since = interval '1 second'";
    assert!(world.lane::<bool>(begins_anew).await, "the pauses");
    // A failed probe of the present hold counts, however long ago the last one ended.
    world
        .set_lane("hold_until = clock_timestamp(), released_at = clock_timestamp()")
        .await;
    let probe = Claim::default().run(&world.pool).await;
    let found = hold(&world, "unavailable", Some(probe.id)).await;
    assert_eq!(found, "extended");
}

#[tokio::test]
async fn an_app_without_a_lane_can_not_be_held() {
    let world = World::new().await;
    assert_eq!(hold(&world, "unavailable", None).await, "other");
    assert!(!release_hold(&world, Uuid::new_v4()).await);
}

#[tokio::test]
async fn a_hold_of_an_unknown_kind_is_refused() {
    let world = world().await;
    let hold = "select signaling.hold('default', 'tired', 'why', null)";
    let error = super::refusal(&world, hold).await;
    assert_eq!(error.constraint(), Some("hold_is_not_a_known_hold"));
}
