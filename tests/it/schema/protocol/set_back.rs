//! Times that lie ahead, because the clock of the database was set back: SQL can't set the clock, so the times are changed.

use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{
    BEGINNING, Claim, LEASE, LEASE_TEXT, NOT_HELD, hold, lock_messages, make_retries, now,
    set_workers, world,
};
use harness::{World, peer};

/// Changes messages until nothing more is found, and returns how many have changed.
async fn set_messages_back(world: &World) -> i32 {
    let mut changed = 0;
    for of_retries in [false, true] {
        let (mut after_at, mut after_id) = (BEGINNING.to_owned(), 0);
        loop {
            let (step, last_at, last_id): (i32, Option<String>, Option<i64>) = sqlx::query_as(
                "select changed, last_at::text, last_id
                 from signaling.set_messages_back('default', $1::text::interval, $2, $3::text::timestamptz, $4)",
            )
            .bind(LEASE_TEXT)
            .bind(of_retries)
            .bind(&after_at)
            .bind(after_id)
            .fetch_one(&world.pool)
            .await
            .expect("changed");
            changed += step;
            let Some((last_at, last_id)) = last_at.zip(last_id) else {
                break;
            };
            (after_at, after_id) = (last_at, last_id);
        }
    }
    changed
}

/// Messages that were inserted while the clock was ahead by an hour.
const INSERTED_AHEAD: &str =
    "created_at = created_at + interval '1 hour', due_at = due_at + interval '1 hour'";

async fn due_in(world: &World, id: i64) -> Duration {
    world.row(id).await.due_at - now(world).await
}

#[tokio::test]
async fn the_first_claim_after_the_clock_was_set_back_brings_the_lane_back() {
    let world = world().await;
    world.insert(peer(json!({}))).await;
    world
        .set_lane(
            "rate_at = now() + interval '1 hour', next_slot_at = now() + interval '1 hour 200 milliseconds',
             retry_after_until = now() + interval '1 hour 5 seconds', throttled_at = now() + interval '59 minutes',
             released_at = now() + interval '58 minutes'",
        )
        .await;
    let claim = Claim::default().run(&world.pool).await;
    let back_by = claim.lane.set_back_by.expect("the clock was set back");
    let hour_us = 3_600_000_000;
    assert!((hour_us - 10_000_000..=hour_us).contains(&back_by.microseconds));
    assert!(claim.messages.is_empty(), "the API has asked for a wait");
    let wait: OffsetDateTime = world.lane("retry_after_until").await;
    let wait = wait - now(&world).await;
    assert!((Duration::ZERO..=Duration::seconds(5)).contains(&wait));
    let are_past = "throttled_at < now() and released_at < now() and rate_at <= clock_timestamp()";
    assert!(world.lane::<bool>(are_past).await);

    world.set_lane("retry_after_until = null").await;
    let claim = Claim::default().run(&world.pool).await;
    assert_eq!(claim.lane.set_back_by, None);
    assert_eq!(claim.messages.len(), 1);
}

#[tokio::test]
async fn slots_from_before_a_clock_step_stay_ahead_of_later_ones() {
    let world = world().await;
    world.insert_many(30).await;
    let before = Claim::of_at_most(10).run(&world.pool).await;
    let given_out = before.lane.next_slot_at - before.lane.at;
    world
        .set_lane("rate_at = rate_at + interval '1 hour', next_slot_at = next_slot_at + interval '1 hour'")
        .await;
    let after = Claim::of_at_most(10).run(&world.pool).await;
    let later = after.messages[0].slot_at - (after.lane.at + given_out);
    let allowed = Duration::ZERO..=Duration::seconds(1);
    assert!(allowed.contains(&later), "{later} after the old slots");
}

#[tokio::test]
async fn a_refused_message_is_tried_again_after_the_clock_was_set_back() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "insert into signaling.refused (app, message_id, refused_at, times, retry_at)
             values ('default', {id}, now() + interval '59 minutes', 1, now() + interval '1 hour')"
        ))
        .await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [0_i64; 0]);
    world.set_lane("rate_at = now() + interval '1 hour'").await;
    assert_eq!(Claim::default().run(&world.pool).await.ids(), [id]);
}

#[tokio::test]
async fn a_hold_of_a_clock_that_was_ahead_ends_when_it_would_have() {
    let world = world().await;
    world.insert(peer(json!({}))).await;
    world
        .set_lane(
            "rate_at = now() + interval '1 hour', hold = 'unavailable', hold_since = now(),
         hold_until = now() + interval '1 hour'",
        )
        .await;
    let claim = Claim::default().run(&world.pool).await;
    assert_eq!(claim.messages.len(), 1, "the probe is made");
}

#[tokio::test]
async fn a_message_that_was_inserted_ahead_of_the_clock_is_due_and_a_scheduled_one_stays() {
    let world = world().await;
    let at_once = world.insert(peer(json!({}))).await;
    let scheduled = world.insert(peer(json!({}))).await;
    let later = world
        .insert(peer(json!({"due_at": world.time_in(600_000).await})))
        .await;
    world
        .set_messages(&format!("{INSERTED_AHEAD} where id <> {later}"))
        .await;
    world
        .set_messages(&format!(
            "due_at = due_at + interval '1 minute' where id = {scheduled}"
        ))
        .await;
    assert_eq!(set_messages_back(&world).await, 1);
    assert!(due_in(&world, at_once).await <= Duration::ZERO);
    assert!(due_in(&world, scheduled).await > Duration::minutes(60));
    assert!(due_in(&world, later).await > Duration::minutes(9));
    let found = set_messages_back(&world).await;
    assert_eq!(found, 0, "given again, nothing changes");
}

#[tokio::test]
async fn a_retry_waits_as_long_as_after_its_call_and_one_made_by_hand_is_due() {
    let world = world().await;
    world.insert_many(3).await;
    make_retries(&world, "true").await;
    // The second one was retried by hand. The third one waits for as long as the API has asked.
    world
        .execute(
            "update signaling.outbox set due_at = now() + interval '1 hour';
             update signaling.outbox set sent_at = now() + interval '1 hour', due_at = due_at + interval '20 seconds'
             where id = 1;
             update signaling.outbox set attempts = 0 where id = 2",
        )
        .await;
    assert_eq!(set_messages_back(&world).await, 2);
    let wait = due_in(&world, 1).await;
    let allowed = Duration::seconds(5)..=Duration::seconds(20);
    assert!(allowed.contains(&wait), "{wait}");
    assert!(due_in(&world, 2).await <= Duration::ZERO);
    assert!(due_in(&world, 3).await > Duration::minutes(59));
    let found = set_messages_back(&world).await;
    assert_eq!(found, 0, "given again, nothing changes");
}

#[tokio::test]
async fn a_lease_of_a_clock_that_was_ahead_lasts_no_longer_than_one_lease() {
    let world = world().await;
    world.insert_many(2).await;
    let claim = Claim::of_at_most(1).run(&world.pool).await;
    let id = claim.ids()[0];
    let found = set_messages_back(&world).await;
    assert_eq!(found, 0, "a lease that runs is left");
    world
        .set_messages(&format!(
            "due_at = due_at + interval '1 hour' where id = {id}"
        ))
        .await;
    assert_eq!(set_messages_back(&world).await, 1);
    let row = world.row(id).await;
    assert_eq!(row.claim_id, Some(claim.id), "its worker still has it");
    assert!(due_in(&world, id).await <= LEASE);
}

#[tokio::test]
async fn any_number_of_messages_is_brought_back_a_few_thousand_at_a_time() {
    let world = world().await;
    world
        .execute(
            "insert into signaling.outbox (sender, destination, payload, due_at)
             select 'alice', 'bob', 'hello', now() + interval '10 minutes' from generate_series(1, 6000)",
        )
        .await;
    world.insert_many(7_000).await;
    world
        .set_messages(&format!("{INSERTED_AHEAD} where due_at <= now()"))
        .await;
    assert_eq!(set_messages_back(&world).await, 7_000);
    assert_eq!(world.count("due_at <= clock_timestamp()").await, 7_000);
}

#[tokio::test]
async fn a_message_that_somebody_has_locked_is_passed_over() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    world.set_messages(INSERTED_AHEAD).await;
    let lock = lock_messages(&world, "true").await;
    assert_eq!(set_messages_back(&world).await, 0);
    lock.rollback().await.expect("unlocked");
    assert_eq!(set_messages_back(&world).await, 1);
    assert!(due_in(&world, id).await <= Duration::ZERO);
}

#[tokio::test]
async fn an_uncertain_expiry_neither_ends_a_message_nor_lets_a_worker_send_it() {
    let world = world().await;
    world.insert_many(2).await;
    make_retries(&world, "id = 2").await;
    let past = "expires_at = now() - interval '10 seconds', due_at = now() - interval '1 minute'";
    world.set_messages(past).await;
    let claim = Claim {
        ended_before: world.time_in(-60_000).await,
        ..Claim::default()
    };
    let uncertain = claim.run(&world.pool).await;
    assert_eq!((uncertain.messages.len(), uncertain.lane.expired), (0, 0));
    let expire = "select expired from signaling.expire('{default}', now() - interval '1 minute')";
    assert!(world.column::<i32>(expire).await.is_empty());
    hold(&world).await;
    let probe = claim.run(&world.pool).await;
    assert_eq!((probe.messages.len(), probe.lane.expired), (0, 0));
    world.set_lane(NOT_HELD).await;
    let certain = Claim::default().run(&world.pool).await;
    assert_eq!((certain.messages.len(), certain.lane.expired), (0, 2));
    assert_eq!(world.count("status = 'expired'").await, 2);
}

#[tokio::test]
async fn a_clock_that_is_ahead_deletes_nothing_and_one_that_was_set_back_keeps_no_turn() {
    let world = world().await;
    world.insert(peer(json!({}))).await;
    let changes =
        "status = 'message_sent', sent_at = now(), finished_at = now() - interval '2 minutes',
                   created_at = now() - interval '2 minutes'";
    world.set_messages(changes).await;
    let delete = async |ended_before: &str| -> (bool, Option<i64>) {
        sqlx::query_as(
            "select has_turn, deleted from signaling.delete_finished(gen_random_uuid(), '1 minute',
                 ended_before => $1::text::timestamptz)",
        )
        .bind(ended_before)
        .fetch_one(&world.pool)
        .await
        .expect("deleted")
    };
    let found = delete(&world.time_in(-600_000).await).await;
    assert_eq!(found, (true, Some(0)));
    world
        .execute("update signaling.retention set held_until = now() + interval '1 hour'")
        .await;
    assert_eq!(delete("infinity").await, (true, Some(1)));

    world
        .execute("update signaling.queue_counts_turn set counted_at = now() + interval '1 hour'")
        .await;
    let count = "select signaling.refresh_queue_counts('1 minute')";
    assert!(world.ask::<bool>(count).await);
}

#[tokio::test]
async fn a_worker_that_was_seen_ahead_of_the_clock_is_not_alive() {
    let world = world().await;
    world.pretend_worker("one", "1", "default").await;
    let is_alive = async || -> bool { world.ask("select is_alive from signaling.fleet").await };
    assert!(is_alive().await);
    set_workers(&world, "seen_at = now() + interval '1 hour'").await;
    assert!(!is_alive().await);
}
