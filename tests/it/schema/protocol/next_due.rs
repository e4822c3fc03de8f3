//! `signaling.next_due`: when the next messages of some apps are due.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};

use super::{BEGINNING, claimed_message, make_retries, now, world};
use harness::{World, peer};

#[derive(Debug, FromRow)]
struct NextDue {
    app: String,
    at: OffsetDateTime,
    hold: Option<String>,
    hold_until: Option<OffsetDateTime>,
    first_due_at: Option<OffsetDateTime>,
    first_id: Option<i64>,
    retry_due_at: Option<OffsetDateTime>,
    retry_id: Option<i64>,
}

/// Calls `signaling.next_due` for these apps. Each app has one scan position, for first attempts and for retries.
async fn next_due(world: &World, positions: &[(&str, &str, i64)]) -> BTreeMap<String, NextDue> {
    let apps: Vec<&str> = positions.iter().map(|(app, ..)| *app).collect();
    let times: Vec<&str> = positions.iter().map(|(_, time, _)| *time).collect();
    let ids: Vec<i64> = positions.iter().map(|(.., id)| *id).collect();
    let rows: Vec<NextDue> = sqlx::query_as(
        "select app, (due->>'at')::timestamptz as at, due->'hold'->>'kind' as hold,
                (due->'hold'->>'until')::timestamptz as hold_until,
                (due->'first'->>0)::timestamptz as first_due_at, (due->'first'->>1)::bigint as first_id,
                (due->'retry'->>0)::timestamptz as retry_due_at, (due->'retry'->>1)::bigint as retry_id
         from signaling.next_due(
             apps => $1, first_after_at => $2::text[]::timestamptz[], first_after_id => $3,
             retry_after_at => $2::text[]::timestamptz[], retry_after_id => $3,
             horizon => '500 milliseconds', poll_interval => '2 seconds', renews_wakeup => false)",
    )
    .bind(apps)
    .bind(times)
    .bind(ids)
    .fetch_all(&world.pool)
    .await
    .expect("an answer");
    rows.into_iter().map(|row| (row.app.clone(), row)).collect()
}

async fn default_app(world: &World) -> NextDue {
    let mut rows = next_due(world, &[("default", BEGINNING, 0)]).await;
    rows.remove("default").expect("a row")
}

/// Has all messages be due after a time.
async fn make_due_in(world: &World, time: &str) {
    let due_at = format!("due_at = clock_timestamp() + interval '{time}'");
    world.set_messages(&due_at).await;
}

#[tokio::test]
async fn each_app_that_has_a_lane_gets_a_row() {
    let world = world().await;
    world.open_lane("other").await;
    let id = world.insert(peer(json!({}))).await;
    let later = world.time_in(60_000).await;
    let other = world
        .insert(peer(json!({"app": "other", "due_at": later})))
        .await;
    world.insert(peer(json!({"app": "unserved"}))).await;
    let positions = ["default", "other", "unserved"].map(|app| (app, BEGINNING, 0));
    let before = now(&world).await;
    let rows = next_due(&world, &positions).await;
    assert!(rows.keys().eq(["default", "other"]), "{rows:?}");
    assert!(rows["default"].at >= before);
    for (app, id) in [("default", id), ("other", other)] {
        let row = &rows[app];
        assert_eq!(row.first_id, Some(id));
        assert_eq!(row.first_due_at, Some(world.row(id).await.due_at));
        assert_eq!((row.retry_id, row.retry_due_at), (None, None));
        assert_eq!((row.hold.as_deref(), row.at), (None, rows["default"].at));
    }
    assert!(next_due(&world, &[]).await.is_empty());
}

#[tokio::test]
async fn each_app_is_looked_at_from_its_own_scan_position() {
    let world = world().await;
    world.open_lane("other").await;
    let due_at = world.time_in(-1_000).await;
    let mut ids = Vec::new();
    for app in ["default", "default", "other", "other"] {
        let message = peer(json!({"app": app, "due_at": due_at}));
        ids.push(world.insert(message).await);
    }
    let positions = [("default", &*due_at, ids[0]), ("other", &*due_at, ids[3])];
    let rows = next_due(&world, &positions).await;
    assert_eq!(rows["default"].first_id, Some(ids[1]));
    assert_eq!(rows["other"].first_id, None);
}

#[tokio::test]
async fn next_due_shows_retries_and_ending_leases_within_the_poll_interval() {
    for is_claimed in [false, true] {
        let world = world().await;
        let (id, _) = claimed_message(&world).await;
        if !is_claimed {
            make_retries(&world, "true").await;
            world.set_messages("claim_id = null").await;
        }
        make_due_in(&world, "1 minute").await;
        assert_eq!(default_app(&world).await.retry_id, None, "{is_claimed}");
        make_due_in(&world, "1 second").await;
        let row = default_app(&world).await;
        assert_eq!((row.retry_id, row.first_id), (Some(id), None));
        assert_eq!(row.retry_due_at, Some(world.row(id).await.due_at));
    }
}

#[tokio::test]
async fn a_held_lane_says_when_its_probe_may_be_made() {
    let world = world().await;
    world
        .execute("select signaling.hold('default', 'unauthorized', 'HTTP 401', null)")
        .await;
    let row = default_app(&world).await;
    assert_eq!(row.hold.as_deref(), Some("unauthorized"));
    let until: OffsetDateTime = world.lane("hold_until").await;
    assert_eq!(row.hold_until, Some(until));
    // The API asked to wait for longer.
    world
        .execute("select signaling.throttle('default', clock_timestamp(), '10 seconds')")
        .await;
    let until = default_app(&world).await.hold_until.expect("a time");
    let asked: OffsetDateTime = world.lane("retry_after_until").await;
    assert_eq!(until, asked - Duration::milliseconds(500));
    // All slots up to a later time are given out.
    world
        .set_lane("next_slot_at = clock_timestamp() + interval '1 minute'")
        .await;
    let until = default_app(&world).await.hold_until.expect("a time");
    let next_slot_at: OffsetDateTime = world.lane("next_slot_at").await;
    assert_eq!(until, next_slot_at - Duration::milliseconds(500));
}

#[tokio::test]
async fn a_paused_lane_says_so() {
    let world = world().await;
    world.execute("select signaling.pause('default')").await;
    let row = default_app(&world).await;
    assert_eq!(row.hold.as_deref(), Some("paused"));
    assert_eq!(row.hold_until, Some(row.at + Duration::hours(1)));
}

/// Asks for the default app, and returns how long inserts notify its workers after that, in whole seconds.
async fn wakeup_after(world: &World, wanted_for: &str, renews: bool) -> i64 {
    world
        .execute(&format!(
            "insert into signaling.wakeup values ('default', clock_timestamp() + interval '{wanted_for}')
             on conflict (app) do update set wanted_until = excluded.wanted_until;
             select from signaling.next_due(array['default', 'other'], '{{-infinity,-infinity}}', '{{0,0}}',
                                            '{{-infinity,-infinity}}', '{{0,0}}', '500 ms', '2 s', {renews})"
        ))
        .await;
    world
        .ask(
            "select ceil(extract(epoch from wanted_until - clock_timestamp()))::bigint
             from signaling.wakeup where app = 'default'",
        )
        .await
}

#[tokio::test]
async fn a_poll_renews_wakeups_that_would_end_soon_and_begins_none() {
    let world = world().await;
    assert!(wakeup_after(&world, "40 seconds", true).await > 45);
    assert!(wakeup_after(&world, "40 seconds", false).await <= 40);
    assert!(wakeup_after(&world, "55 seconds", true).await <= 55);
    assert!(wakeup_after(&world, "-1 second", true).await <= 0);
    let apps: i64 = world.ask("select count(*) from signaling.wakeup").await;
    assert_eq!(apps, 1, "the other app has none");
}

#[tokio::test]
async fn a_poll_does_not_wait_for_a_wakeup_that_another_worker_renews() {
    let world = world().await;
    wakeup_after(&world, "40 seconds", false).await;
    let _lock = world
        .open_transaction("select from signaling.wakeup for update")
        .await;
    world
        .execute(
            "set lock_timeout = '5s';
             select from signaling.next_due(array['default'], '{-infinity}', '{0}', '{-infinity}', '{0}',
                                            '500 ms', '2 s', true)",
        )
        .await;
}
