//! `signaling.open_lane` and `signaling.set_limit`: an app's lane and its limit.

use super::{refusal, world};
use harness::World;

async fn open_lane(world: &World, limit: f64) {
    sqlx::query("select signaling.open_lane('default', $1)")
        .bind(limit)
        .execute(&world.pool)
        .await
        .expect("opened");
}

/// Sets the limit as an operator; whether that changed something.
async fn set_limit(world: &World, limit: Option<f64>) -> bool {
    sqlx::query_scalar("select signaling.set_limit('default', $1, 'the operator')")
        .bind(limit)
        .fetch_one(&world.pool)
        .await
        .expect("set")
}

/// The limit, the configured one, the rate, and who set the limit.
async fn limits(world: &World) -> String {
    world
        .lane("concat_ws(' ', limit_per_s, configured_per_s, round(rate_per_s::numeric, 3), limit_set_by)")
        .await
}

#[tokio::test]
async fn a_lane_opens_with_the_configured_limit_and_takes_a_new_one() {
    let world = World::new().await;
    for (limit, limits_then) in [
        (102.0, "102 102 100.000"),
        (204.0, "204 204 200.000"),
        (51.0, "51 51 50.000"),
    ] {
        open_lane(&world, limit).await;
        assert_eq!(limits(&world).await, limits_then);
        let is_free = "next_slot_at = 'epoch' and hold is null and paused_at is null";
        assert!(world.lane::<bool>(is_free).await);
    }
}

#[tokio::test]
async fn a_lane_that_is_open_is_not_written_again() {
    let world = world().await;
    let version: String = world.lane("ctid::text || xmin").await;
    open_lane(&world, 102.0).await;
    assert_eq!(world.lane::<String>("ctid::text || xmin").await, version);
}

#[tokio::test]
async fn a_limit_that_an_operator_has_set_stays_when_workers_start() {
    let world = world().await;
    assert!(set_limit(&world, Some(51.0)).await);
    assert_eq!(limits(&world).await, "51 102 50.000 the operator");
    open_lane(&world, 204.0).await;
    assert_eq!(limits(&world).await, "51 204 50.000 the operator");
    assert!(set_limit(&world, None).await);
    assert_eq!(limits(&world).await, "204 204 200.000");
    assert!(world.lane::<bool>("limit_set_at is null").await);
}

#[tokio::test]
async fn a_limit_that_is_set_again_changes_nothing() {
    let world = world().await;
    assert!(!set_limit(&world, None).await);
    assert!(set_limit(&world, Some(102.0)).await, "now the operator's");
    assert!(!set_limit(&world, Some(102.0)).await);
}

#[tokio::test]
async fn a_lane_that_was_throttled_climbs_on_from_its_rate_when_the_limit_changes() {
    let world = world().await;
    world
        .set_lane("rate_per_s = 40, rate_at = clock_timestamp() + interval '1 hour'")
        .await;
    assert!(set_limit(&world, Some(204.0)).await);
    assert_eq!(limits(&world).await, "204 102 40.000 the operator");
    assert!(set_limit(&world, Some(10.2)).await);
    assert_eq!(limits(&world).await, "10.2 102 10.000 the operator");
}

#[tokio::test]
async fn a_limit_out_of_bounds_is_refused_with_a_constraint_that_says_so() {
    let world = world().await;
    for limit in ["0", "0.5", "-1", "1000001", "infinity", "nan"] {
        for function in ["set_limit", "open_lane"] {
            let call = format!("select signaling.{function}('default', '{limit}')");
            assert_eq!(
                refusal(&world, &call).await.constraint(),
                Some("limit_per_s_is_not_between_1_and_a_million"),
                "{call}"
            );
        }
    }
    assert_eq!(limits(&world).await, "102 102 100.000");
}

#[tokio::test]
async fn an_unknown_app_is_refused_with_the_apps_that_there_are() {
    let world = world().await;
    for call in ["pause('othr')", "resume('othr')", "set_limit('othr', 5)"] {
        let error = refusal(&world, &format!("select signaling.{call}")).await;
        assert_eq!(error.message(), "there is no app 'othr'", "{call}");
        assert_eq!(error.hint(), Some("the apps are: default"), "{call}");
    }
}
