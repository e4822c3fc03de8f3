//! `signaling.reserve_slot`: a slot for a call that belongs to no message.

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Claim, SPACING, world};
use testkit::World;

#[derive(Debug, FromRow)]
struct Reserved {
    at: OffsetDateTime,
    slot_at: OffsetDateTime,
    refusal: Option<String>,
    is_probe: bool,
}

async fn reserve(world: &World, app: &str, call_id: Uuid) -> Option<Reserved> {
    sqlx::query_as("select * from signaling.reserve_slot($1, $2, '10 seconds', '500 milliseconds')")
        .bind(app)
        .bind(call_id)
        .fetch_optional(&world.pool)
        .await
        .expect("an answer")
}

/// Why the default app has no slot to give. A refusal takes none.
async fn refusal(world: &World) -> Option<String> {
    let before: String = world.lane("lane::text").await;
    let reserved = reserve(world, "default", Uuid::new_v4())
        .await
        .expect("a row");
    if reserved.refusal.is_some() {
        assert_eq!(world.lane::<String>("lane::text").await, before);
    }
    reserved.refusal
}

#[tokio::test]
async fn a_call_gets_a_slot_of_the_lane_and_no_claim_gets_the_same() {
    let world = world().await;
    let first = reserve(&world, "default", Uuid::new_v4())
        .await
        .expect("a row");
    assert_eq!((first.refusal, first.is_probe), (None, false));
    assert_eq!(first.slot_at, first.at + Duration::milliseconds(250));
    let second = reserve(&world, "default", Uuid::new_v4())
        .await
        .expect("a row");
    assert!(second.slot_at >= first.slot_at + SPACING);
    world.insert_many(1).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert!(claimed.messages[0].slot_at >= second.slot_at + SPACING);
    assert!(
        world
            .lane::<bool>("probe_claim_id is null and hold_until is null")
            .await
    );
}

#[tokio::test]
async fn an_app_without_a_lane_has_no_slot() {
    let world = world().await;
    assert!(reserve(&world, "other", Uuid::new_v4()).await.is_none());
}

#[tokio::test]
async fn a_refusal_says_why_and_takes_no_slot() {
    let world = world().await;
    world
        .set_lane("next_slot_at = clock_timestamp() + interval '900 milliseconds'")
        .await;
    assert_eq!(refusal(&world).await, None, "within twice the horizon");
    world
        .set_lane("next_slot_at = clock_timestamp() + interval '1900 milliseconds'")
        .await;
    assert_eq!(refusal(&world).await.as_deref(), Some("busy"));
    world
        .set_lane(
            "next_slot_at = 'epoch', retry_after_until = clock_timestamp() + interval '10 seconds'",
        )
        .await;
    assert_eq!(refusal(&world).await.as_deref(), Some("retry_after"));
    world.execute("select signaling.pause('default')").await;
    assert_eq!(refusal(&world).await.as_deref(), Some("paused"));
    world.execute("select signaling.resume('default')").await;
    world.set_lane("next_slot_at = clock_timestamp()").await;
    world
        .execute("select signaling.hold('default', 'unavailable', 'HTTP 500', null)")
        .await;
    world
        .set_lane("hold_until = clock_timestamp() + interval '1 minute'")
        .await;
    assert_eq!(refusal(&world).await.as_deref(), Some("held"));
}

#[tokio::test]
async fn the_call_of_a_held_lane_is_its_probe_until_it_is_released() {
    let world = world().await;
    world
        .execute("select signaling.hold('default', 'unavailable', 'HTTP 500', null)")
        .await;
    world.set_lane("hold_until = clock_timestamp()").await;
    let call_id = Uuid::new_v4();
    let reserved = reserve(&world, "default", call_id).await.expect("a row");
    assert_eq!((reserved.refusal, reserved.is_probe), (None, true));
    assert_eq!(world.lane::<Uuid>("probe_claim_id").await, call_id);
    assert_eq!(
        world.lane::<OffsetDateTime>("hold_until").await,
        reserved.at + Duration::seconds(10)
    );
    assert_eq!(refusal(&world).await.as_deref(), Some("held"));
    world
        .execute(&format!(
            "select signaling.release('default', array['{call_id}'::uuid])"
        ))
        .await;
    assert_eq!(refusal(&world).await, None);
}
