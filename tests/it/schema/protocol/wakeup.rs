//! `signaling.want_wakeup`, `can_notify` and the trigger `notify_workers`: which inserts notify idle workers.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use time::OffsetDateTime;

use super::{Claim, listener, world};
use harness::{World, execute};

/// The claim of a worker that listens.
fn listening() -> Claim {
    Claim {
        wants_wakeup: true,
        ..Claim::default()
    }
}

async fn wanted_until(world: &World) -> Option<OffsetDateTime> {
    world
        .ask("select max(wanted_until) from signaling.wakeup where app = 'default'")
        .await
}

async fn set_wanted_until(world: &World, time: &str) {
    let update = format!("update signaling.wakeup set wanted_until = {time}");
    world.execute(&update).await;
}

/// The apps of all notifications up to now.
async fn notified(world: &World, listener: &mut PgListener) -> Vec<String> {
    world.execute("notify signaling_wakeup, 'the end'").await;
    let mut apps = Vec::new();
    loop {
        let notification = tokio::time::timeout(Duration::from_secs(60), listener.recv());
        let notification = notification.await.expect("in time").expect("received");
        match notification.payload() {
            "the end" => return apps,
            app => apps.push(app.to_owned()),
        }
    }
}

#[tokio::test]
async fn a_claim_that_took_all_wants_a_wakeup_and_says_whether_that_is_new() {
    let world = world().await;
    let first = listening().run(&world.pool).await;
    assert_eq!(first.lane.wakeup.as_deref(), Some("new"));
    let until = wanted_until(&world).await;
    assert_eq!(until, Some(first.lane.at + time::Duration::minutes(1)));
    let second = listening().run(&world.pool).await;
    assert_eq!(second.lane.wakeup.as_deref(), Some("on"));
    let found = wanted_until(&world).await;
    assert_eq!(found, until, "it is not written again yet");

    // Half of the minute is over.
    set_wanted_until(&world, "clock_timestamp() + interval '29 seconds'").await;
    let third = listening().run(&world.pool).await;
    assert_eq!(third.lane.wakeup.as_deref(), Some("on"));
    let found = wanted_until(&world).await;
    assert_eq!(found, Some(third.lane.at + time::Duration::minutes(1)));

    // No worker has asked for a wakeup for a while.
    set_wanted_until(&world, "clock_timestamp()").await;
    let fourth = listening().run(&world.pool).await;
    assert_eq!(fourth.lane.wakeup.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_backlog_ends_the_wakeups() {
    let world = world().await;
    listening().run(&world.pool).await;
    world.insert_many(3).await;
    let mut claim = listening();
    claim.max_messages = 2;
    let full = claim.run(&world.pool).await;
    assert_eq!((full.messages.len(), full.lane.wakeup), (2, None));
    assert_eq!(wanted_until(&world).await, Some(full.lane.at));
    let rest = claim.run(&world.pool).await;
    let found = (rest.messages.len(), rest.lane.wakeup.as_deref());
    assert_eq!(found, (1, Some("new")));
}

#[tokio::test]
async fn a_claim_without_slots_leaves_the_wakeups_as_they_are() {
    let world = world().await;
    world.execute("select signaling.pause('default')").await;
    assert_eq!(listening().run(&world.pool).await.lane.wakeup, None);
    assert_eq!(wanted_until(&world).await, None);
    world.execute("select signaling.resume('default')").await;
    listening().run(&world.pool).await;
    world.execute("select signaling.pause('default')").await;
    let last = listening().run(&world.pool).await;
    assert_eq!(last.lane.wakeup.as_deref(), Some("on"));
}

#[tokio::test]
async fn inserts_notify_each_app_once_a_statement_while_a_worker_wants_it() {
    let world = world().await;
    let mut listener = listener(&world).await;
    world.insert_many(2).await;
    assert_eq!(notified(&world, &mut listener).await, [""; 0]);
    listening().run(&world.pool).await;
    world.insert_many(2).await;
    world.insert_many_of("other", 1).await;
    assert_eq!(notified(&world, &mut listener).await, ["default"]);
    set_wanted_until(&world, "clock_timestamp()").await;
    world.insert_many(1).await;
    assert_eq!(notified(&world, &mut listener).await, [""; 0]);
}

#[tokio::test]
async fn no_wakeup_is_wanted_without_a_listener_or_where_notifications_are_off() {
    let world = world().await;
    let mut session: PgConnection = world.connect().await;
    assert_eq!(Claim::default().run(&mut session).await.lane.wakeup, None);
    execute(&mut session, "set signaling.notify = 'off'").await;
    assert_eq!(listening().run(&mut session).await.lane.wakeup, None);
    assert_eq!(wanted_until(&world).await, None);
    execute(&mut session, "set signaling.notify = 'on'").await;
    let last = listening().run(&mut session).await;
    assert_eq!(last.lane.wakeup.as_deref(), Some("new"));
}

#[tokio::test]
async fn an_operator_wakes_the_workers_of_the_app() {
    let world = world().await;
    world.insert_many(1).await;
    let mut listener = listener(&world).await;
    world
        .set_messages("status = 'failed', finished_at = now()")
        .await;
    for action in [
        "select signaling.pause('default'); select signaling.resume('default')",
        "select signaling.set_limit('default', 5)",
        "select signaling.retry('default')",
    ] {
        world.execute(action).await;
        let notified = notified(&world, &mut listener).await;
        assert_eq!(notified, ["default"], "{action}");
    }
}
