//! `signaling.expire`: messages whose time is over while no worker claims them.

use serde_json::{Value, json};

use super::{Claim, INFINITY, lock_messages, world};
use harness::{World, peer};

/// Ends messages of some apps: the app, and how many expired or ended as unknown.
async fn expire(world: &World, apps: &[&str], ended_before: &str) -> Vec<(String, i32, i32)> {
    sqlx::query_as(
        "select app, expired, unknown from signaling.expire($1, $2::text::timestamptz) order by app",
    )
    .bind(apps)
    .bind(ended_before)
    .fetch_all(&world.pool)
    .await
    .expect("expired")
}

/// How many messages of the default app expired, and how many ended as unknown.
async fn expire_default(world: &World) -> (i32, i32) {
    let ended = expire(world, &["default"], INFINITY).await;
    let [(_, expired, unknown)] = ended[..] else {
        panic!("{ended:?}");
    };
    (expired, unknown)
}

/// Inserts a message that is due later and has expired.
async fn overdue(world: &World, columns: Value) -> i64 {
    let past = world.time_in(-1_000).await;
    let mut message = peer(json!({"due_at": world.time_in(60_000).await, "expires_at": past}));
    let fields = message.as_object_mut().expect("an object");
    fields.extend(columns.as_object().expect("an object").clone());
    world.insert(message).await
}

#[tokio::test]
async fn messages_whose_time_is_over_end_in_each_app_that_is_asked_for() {
    let world = world().await;
    let mut ended = Vec::new();
    for app in ["default", "default", "other"] {
        ended.push(overdue(&world, json!({"app": app})).await);
    }
    let unasked = overdue(&world, json!({"app": "unasked"})).await;
    let in_time = overdue(&world, json!({"expires_at": world.time_in(60_000).await})).await;
    let for_ever = overdue(&world, json!({"expires_at": null})).await;
    let counts = expire(&world, &["default", "other", "without"], INFINITY).await;
    assert_eq!(counts, [("default".into(), 2, 0), ("other".into(), 1, 0)]);
    for id in ended {
        let row = world.row(id).await;
        assert_eq!((&*row.status, row.attempts), ("expired", 0));
        assert_eq!(row.error.as_deref(), Some("not sent before its expires_at"));
    }
    for id in [unasked, in_time, for_ever] {
        assert_eq!(world.row(id).await.status, "pending");
    }
    assert!(expire(&world, &["default"], INFINITY).await.is_empty());
}

#[tokio::test]
async fn a_message_expires_in_a_lane_that_is_paused() {
    let world = world().await;
    world.execute("select signaling.pause('default')").await;
    let id = overdue(&world, json!({"due_at": world.time_in(-2_000).await})).await;
    assert_eq!(expire_default(&world).await, (1, 0));
    assert_eq!(world.row(id).await.status, "expired");
}

#[tokio::test]
async fn a_message_that_a_worker_has_is_left_to_it_until_it_is_lost() {
    for (at_most_once, counts, status) in [(false, (1, 0), "expired"), (true, (0, 1), "unknown")] {
        let world = world().await;
        let message = peer(json!({"at_most_once": at_most_once}));
        let id = world.insert(message).await;
        let claim = Claim::default().run(&world.pool).await;
        world
            .set_messages("expires_at = now() - interval '1 second'")
            .await;
        assert_eq!(expire_default(&world).await, (0, 0));
        assert_eq!(world.row(id).await.claim_id, Some(claim.id));

        world.end_leases().await;
        let earlier = world.time_in(-60_000).await;
        assert_eq!(expire(&world, &["default"], &earlier).await, []);
        assert_eq!(expire_default(&world).await, counts, "{status}");
        let row = world.row(id).await;
        assert_eq!((&*row.status, row.attempts), (status, 1));
        assert_eq!(world.attempts(id).await[0].outcome, "lost");
    }
}

#[tokio::test]
async fn one_call_ends_a_thousand_messages_of_an_app_at_most() {
    let world = world().await;
    world.insert_many(1_200).await;
    world
        .set_messages("expires_at = now() - interval '1 second'")
        .await;
    assert_eq!(expire_default(&world).await, (1_000, 0));
    assert_eq!(expire_default(&world).await, (200, 0));
}

#[tokio::test]
async fn a_locked_message_expires_another_time() {
    let world = world().await;
    let id = overdue(&world, json!({})).await;
    let lock = lock_messages(&world, "true").await;
    assert_eq!(expire_default(&world).await, (0, 0));
    lock.commit().await.expect("unlocked");
    assert_eq!(expire_default(&world).await, (1, 0));
    assert_eq!(world.row(id).await.status, "expired");
}
