//! `signaling.throttle` and `signaling.present_rate`: what a 429 does to a lane, and the way back.

use time::{Duration, OffsetDateTime};

use super::{Claim, now, world};
use harness::World;

/// Slows the default app's lane; the new rate, if it was cut.
async fn throttle(world: &World, sent_at: OffsetDateTime, retry_after: &str) -> Option<f64> {
    sqlx::query_scalar("select signaling.throttle('default', $1, $2::text::interval)")
        .bind(sent_at)
        .bind(retry_after)
        .fetch_one(&world.pool)
        .await
        .expect("throttled")
}

/// Keeps the rate from climbing for an hour.
const NO_CLIMB: &str = "rate_at = clock_timestamp() + interval '1 hour'";

#[tokio::test]
async fn a_429_cuts_the_rate_by_a_fifth_once_for_each_burst() {
    let world = world().await;
    let before = now(&world).await;
    let cut = throttle(&world, before, "0").await.expect("a cut");
    assert!((cut - 80.0).abs() < 1e-9, "{cut}");
    let cut_at: OffsetDateTime = world.lane("throttled_at").await;
    assert!(cut_at > before);
    // Attempts that began before the cut, or so soon after it that their slots were older.
    for sent_at in [before, cut_at, cut_at + Duration::milliseconds(200)] {
        assert_eq!(throttle(&world, sent_at, "0").await, None);
    }
    assert_eq!(world.lane::<OffsetDateTime>("throttled_at").await, cut_at);
    world
        .set_lane(&format!("rate_per_s = 80, {NO_CLIMB}"))
        .await;
    let again = throttle(&world, cut_at + Duration::milliseconds(201), "0").await;
    assert!((again.expect("a cut") - 64.0).abs() < 1e-9, "{again:?}");
}

#[tokio::test]
async fn no_slot_is_given_out_for_as_long_as_the_api_asks() {
    let world = world().await;
    let at = now(&world).await;
    throttle(&world, at, "3 seconds").await;
    let until: OffsetDateTime = world.lane("retry_after_until").await;
    assert!(until > at + Duration::seconds(3) && until < at + Duration::seconds(30));
    // A shorter wait does not end a longer one, and the rate is cut once.
    assert_eq!(throttle(&world, at, "1 second").await, None);
    assert_eq!(
        world.lane::<OffsetDateTime>("retry_after_until").await,
        until
    );
    assert_eq!(throttle(&world, at, "60 seconds").await, None);
    let until: OffsetDateTime = world.lane("retry_after_until").await;
    assert!(until > at + Duration::seconds(60));
    // The wait does not move `next_slot_at`.
    assert!(world.lane::<bool>("next_slot_at = 'epoch'").await);
    world.insert_many(1).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.has_no_slot(), "{claimed:?}");
    assert_eq!(claimed.lane.next_slot_at, until);
    // An operator may end the wait.
    world.execute("select signaling.resume('default')").await;
    assert_eq!(Claim::default().run(&world.pool).await.messages.len(), 1);
}

#[tokio::test]
async fn the_first_slot_after_the_wait_is_at_its_end() {
    let world = world().await;
    world.insert_many(1).await;
    throttle(&world, now(&world).await, "600 milliseconds").await;
    let until: OffsetDateTime = world.lane("retry_after_until").await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!(claimed.messages[0].slot_at, until);
}

#[tokio::test]
async fn a_429_that_asks_for_no_wait_leaves_an_earlier_wait_as_it_is() {
    let world = world().await;
    throttle(&world, now(&world).await, "0").await;
    assert!(world.lane::<bool>("retry_after_until is null").await);
    throttle(&world, now(&world).await, "60 seconds").await;
    let until: OffsetDateTime = world.lane("retry_after_until").await;
    let later = now(&world).await + Duration::seconds(1);
    assert!(throttle(&world, later, "0").await.is_some(), "another cut");
    assert_eq!(
        world.lane::<OffsetDateTime>("retry_after_until").await,
        until
    );
}

#[tokio::test]
async fn a_lane_is_never_throttled_below_one_call_in_two_seconds() {
    let world = world().await;
    world
        .set_lane(&format!("rate_per_s = 0.55, {NO_CLIMB}"))
        .await;
    let rate = throttle(&world, now(&world).await, "0").await;
    assert!((rate.expect("a cut") - 0.5).abs() < 1e-9, "{rate:?}");
}

#[tokio::test]
async fn a_cut_rate_climbs_back_by_five_percent_a_second_to_the_limit() {
    let world = world().await;
    for (rate, seconds, limit, expected) in [
        (50.0, 0, 102.0, 50.0),
        (50.0, 1, 102.0, 52.5),
        (50.0, 2, 102.0, 55.125),
        (50.0, 60, 102.0, 100.0),
        (0.5, 1_000_000_000, 1_020.0, 1_000.0),
        // The limit was lowered since.
        (50.0, 0, 10.2, 10.0),
        // The clock was put back since.
        (50.0, -60, 102.0, 50.0),
    ] {
        let rate = format!(
            "select signaling.present_rate({rate}, '2030-01-01', {limit},
                                           '2030-01-01'::timestamptz + {seconds} * interval '1 second')"
        );
        let found: f64 = world.ask(&rate).await;
        assert!((found - expected).abs() < 1e-6, "{rate}: {found}");
    }
}
