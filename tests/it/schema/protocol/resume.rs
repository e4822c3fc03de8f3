//! `signaling.resume`: what it changes, and what it says.

use super::{NOT_HELD, now, world};
use harness::World;

const NOTHING_CHANGED: &str =
    "nothing changed: the app was not paused, and the API has asked for no wait";

async fn resume(world: &World) -> String {
    world.ask("select signaling.resume('default')").await
}

#[tokio::test]
async fn each_state_of_a_lane_has_its_sentence() {
    const PAUSED: &str = "select signaling.pause('default', 'a test')";
    const WAITING: &str = "select signaling.throttle('default', clock_timestamp(), '1 minute')";
    let world = world().await;
    world.pretend_worker("a-worker", "1", "default").await;
    for (states, sentence) in [
        (&[][..], NOTHING_CHANGED),
        (&[PAUSED], "resumed"),
        (&[WAITING], "ended the wait that the API has asked for"),
        (
            &[PAUSED, WAITING],
            "resumed, and ended the wait that the API has asked for",
        ),
    ] {
        for state in states {
            world.execute(state).await;
        }
        assert_eq!(resume(&world).await, sentence);
        let is_open = "paused_at is null and paused_by is null and pause_reason is null
                       and retry_after_until is null";
        assert!(world.lane::<bool>(is_open).await, "{sentence}");
    }
    let is_over = "retry_after_until = clock_timestamp() - interval '1 second'";
    world.set_lane(is_over).await;
    assert_eq!(resume(&world).await, NOTHING_CHANGED);
}

#[tokio::test]
async fn a_hold_stays_and_is_told_of() {
    let world = world().await;
    world.pretend_worker("a-worker", "1", "default").await;
    for (kind, reason, told) in [
        (
            "unauthorized",
            "HTTP 401",
            ", because the API refuses its credentials (HTTP 401): correct them. One message is tried every few seconds",
        ),
        (
            "unavailable",
            "HTTP 500",
            ", because the API fails or can't be reached (HTTP 500). One message is tried every few seconds",
        ),
    ] {
        world
            .execute(&format!(
                "select signaling.hold('default', '{kind}', '{reason}', null), signaling.pause('default', 'a test')"
            ))
            .await;
        let since: String = world
            .lane("to_char(hold_since at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
            .await;
        let told = format!("; but the app is {kind} since {since}{told}");
        assert_eq!(resume(&world).await, format!("resumed{told}"));
        let nothing_changed = format!("{NOTHING_CHANGED}{told}");
        assert_eq!(resume(&world).await, nothing_changed);
        assert_eq!(world.lane::<String>("hold").await, kind);
        world.set_lane(NOT_HELD).await;
    }
}

#[tokio::test]
async fn the_workers_are_woken_where_something_has_changed_and_the_rate_stays_cut() {
    let world = world().await;
    world.pretend_worker("a-worker", "1", "default").await;
    let mut listener = super::listener(&world).await;
    resume(&world).await;
    let before = now(&world).await;
    world
        .execute("select signaling.throttle('default', clock_timestamp(), '1 minute')")
        .await;
    resume(&world).await;
    let woken = listener.recv().await.expect("a notification");
    assert_eq!(woken.payload(), "default");
    let another = listener.next_buffered();
    assert!(another.is_none(), "nothing changed the first time");
    assert!(world.lane::<f64>("rate_per_s").await < 81.0);
    assert!(world.lane::<time::OffsetDateTime>("throttled_at").await >= before);
}
