//! `worker check --probe`

use super::{assert_line, check, lane, open_lane, said};
use crate::schema::roles::Role;
use testkit::{API_KEY, World, basic};

#[tokio::test]
async fn a_probe_is_one_call_within_the_apps_limit() {
    let world = World::new().await;
    open_lane(&world).await;
    let role = Role::granted(&world, "worker").await;
    let probe = |world: &World| {
        check(world)
            .env("DATABASE_URL", &role.url)
            .arg("--probe")
            .arg("user-17")
    };
    let text = said(probe(&world), 0).await;
    assert_line(
        &text,
        "ok",
        "probe",
        &["default: the API accepted the message"],
    );
    let calls = world.calls_of("signaling-worker check");
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(world.count("true").await, 0);
    assert_ne!(
        lane(&world, "next_slot_at > '2000-01-01'").await,
        "false",
        "no slot was spent"
    );

    // The key of this process is refused; that is no news for the fleet.
    world.set_credentials(basic(API_KEY, "another secret"));
    let text = said(probe(&world), 1).await;
    assert_line(
        &text,
        "FAIL",
        "probe",
        &["refuses the credentials", "HTTP 401", "AGORA_API_SECRET"],
    );
    assert_eq!(lane(&world, "coalesce(hold, 'none')").await, "none");
    assert_eq!(world.seen().calls, 2);
}

#[tokio::test]
async fn a_probe_respects_the_state_of_the_lane() {
    let world = World::new().await;
    let probe = |world: &World| check(world).arg("--probe").arg("user-17");
    // The app is new: nobody has opened its lane.
    said(probe(&world), 0).await;
    assert_eq!(world.seen().calls, 1);

    world
        .execute("update signaling.lane set hold = 'unauthorized', hold_reason = 'HTTP 401', hold_since = now(), hold_until = now()")
        .await;
    let text = said(probe(&world), 0).await;
    assert_line(&text, "warn", "lane", &["unauthorized", "HTTP 401"]);
    assert_line(&text, "ok", "probe", &[]);
    assert_eq!(world.seen().calls, 2);
    // The check used the lane's one probe. The next probe is that of a worker.
    assert_eq!(lane(&world, "hold").await, "unauthorized");
    assert_eq!(
        lane(
            &world,
            "probe_claim_id is null and hold_until <= clock_timestamp()"
        )
        .await,
        "true"
    );

    world
        .execute("update signaling.lane set paused_at = now(), paused_by = 'olga'")
        .await;
    let text = said(probe(&world), 0).await;
    assert_line(
        &text,
        "warn",
        "lane",
        &["paused by olga", "worker resume default"],
    );
    assert_line(&text, "warn", "probe", &["not made", "paused"]);
    assert_eq!(world.seen().calls, 2);
}

#[tokio::test]
async fn a_probe_gets_a_slot_beside_a_backlog() {
    let world = World::new().await;
    world.insert_many(2_000).await;
    let mut worker = world.worker().env("WORKER_RATE", "200").start();
    world.until_accepted(20).await;
    let text = said(
        check(&world)
            .env("WORKER_RATE", "200")
            .arg("--probe")
            .arg("user-17"),
        0,
    )
    .await;
    assert_line(&text, "ok", "probe", &[]);
    assert_eq!(world.calls_of("signaling-worker check").len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_probe_needs_a_user_that_the_api_allows() {
    let world = World::new().await;
    let probe = check(&world).arg("--probe").arg("");
    let finished = probe.finish().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(world.seen().calls, 0);
}
