//! Minute stats and queue counts.

use serde_json::json;

use harness::{APP_ID, PATIENCE, World, fleet, peer, slow_api};

/// A sum over all minutes.
async fn total(world: &World, column: &str) -> i64 {
    world
        .ask(&format!(
            "select coalesce(sum({column}), 0)::bigint from signaling.minute_stats where app = 'default'"
        ))
        .await
}

/// The number of durations in a histogram, over all minutes.
async fn observed(world: &World, column: &str) -> i64 {
    world
        .ask(&format!(
            "select coalesce(sum(count), 0)::bigint from signaling.minute_stats, unnest({column}) as count"
        ))
        .await
}

/// Counts now, also if a worker has just counted.
async fn refresh_queue_counts(world: &World) {
    let is_counted = async || {
        world
            .execute("update signaling.queue_counts_turn set counted_at = 'epoch'")
            .await;
        world.ask("select signaling.refresh_queue_counts()").await
    };
    world
        .until("messages are counted", PATIENCE, is_counted)
        .await;
}

/// (queued, scheduled, retrying, sending) of an app.
async fn queue_counts(world: &World, app: &str) -> Option<(i64, i64, i64, i64)> {
    sqlx::query_as(
        "select queued, scheduled, retrying, sending from signaling.queue_counts where app = $1",
    )
    .bind(app)
    .fetch_optional(&world.pool)
    .await
    .expect("the counts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minute_stats_of_a_fleet_equal_the_apis_ledger_and_the_rows() {
    let world = World::new().await;
    world.set_faults(&[
        "500:first_calls=1,share=0.1",
        "400:destination=never",
        "429:count=2",
    ]);
    world.insert_many(300).await;
    for _ in 0..5 {
        world.insert(peer(json!({"destination": "never"}))).await;
    }
    let mut fleet = fleet(2, || world.worker()).await;
    world.until_all_final().await;
    for worker in &mut fleet {
        worker.stop().await;
    }

    let seen = world.seen();
    let app = &seen.apps[APP_ID];
    assert_eq!(total(&world, "message_sent").await, 300);
    assert_eq!(total(&world, "failed").await, 5);
    assert_eq!(total(&world, "calls_rejected").await, 5);
    for (found, calls) in [
        (total(&world, "calls_transient").await, app.by_status[&500]),
        (total(&world, "calls_throttled").await, app.by_status[&429]),
        (observed(&world, "call_time").await, seen.calls),
    ] {
        assert_eq!(u64::try_from(found), Ok(calls));
    }
    // Each message has one first attempt.
    assert_eq!(observed(&world, "queue_wait").await, 305);
}

#[tokio::test]
async fn the_queue_wait_lasts_from_the_due_time_to_the_first_attempt() {
    let world = World::new().await;
    // The message was inserted long ago.
    let due_at = world.time_in(-2_500).await;
    let message = json!({"created_at": "2001-01-01", "due_at": due_at});
    world.insert(peer(message)).await;
    let mut worker = world.worker().start();
    world.until_all_final().await;
    worker.stop().await;
    let buckets: Vec<i64> = world
        .ask("select queue_wait from signaling.minute_stats where 1 = any (queue_wait)")
        .await;
    // The twelfth bucket ends at 5 s, and the fifteenth at 60 s. A busy machine may be slow.
    let place = buckets.iter().position(|count| *count == 1);
    assert!(matches!(place, Some(11..=14)), "{buckets:?}");
}

#[tokio::test]
async fn pending_messages_are_counted_by_app_and_state() {
    let world = World::with(slow_api(60_000)).await;
    let _worker = world.worker().env("WORKER_MAX_IN_FLIGHT", "1").start();
    world.insert(peer(json!({}))).await;
    // A worker releases a claimed message if its slot is over before the call.
    world.until_calls(1).await;
    world.insert_many(3).await;
    world.insert(peer(json!({"due_at": "2100-01-01"}))).await;
    world
        .insert(peer(json!({"app": "other", "due_at": "2001-01-01"})))
        .await;
    world
        .set_messages("sent_at = now(), attempts = 1 where app = 'other'")
        .await;
    refresh_queue_counts(&world).await;
    assert_eq!(queue_counts(&world, "default").await, Some((3, 1, 0, 1)));
    assert_eq!(queue_counts(&world, "other").await, Some((0, 0, 1, 0)));
    let backlog: i64 = world
        .ask("select backlog from signaling.minute_stats where app = 'default' order by minute desc limit 1")
        .await;
    assert_eq!(backlog, 3);

    // An app without a lane and without messages has no counts. An app with a lane has zeros.
    world
        .execute("delete from signaling.outbox where claim_id is null")
        .await;
    refresh_queue_counts(&world).await;
    assert_eq!(queue_counts(&world, "default").await, Some((0, 0, 0, 1)));
    assert_eq!(queue_counts(&world, "other").await, None);
}

#[tokio::test]
async fn one_worker_counts_at_a_time_and_not_again_soon() {
    let world = World::new().await;
    let count = async |arguments: &str| {
        let count = format!("select signaling.refresh_queue_counts({arguments})");
        world.ask::<bool>(&count).await
    };
    assert!(count("'1 minute'").await);
    assert!(!count("'1 minute'").await, "counted again at once");

    // After a count that took a minute, no worker counts for fifty minutes.
    let set_age = async |minutes: i32| {
        let age = format!("counted_at = now() - interval '{minutes} min', took = '1 min'");
        let set = format!("update signaling.queue_counts_turn set {age}");
        world.execute(&set).await;
    };
    set_age(45).await;
    assert!(!count("").await);
    set_age(51).await;
    let counting = world
        .open_transaction("select from signaling.queue_counts_turn for update")
        .await;
    assert!(!count("").await, "another session counts");
    counting.rollback().await.expect("unlocked");
    assert!(count("").await);
}

#[tokio::test]
async fn minute_stats_are_forgotten_after_eight_days() {
    let world = World::new().await;
    world
        .execute(
            "insert into signaling.minute_stats (minute, app, message_sent)
             select date_trunc('minute', now()) - days * interval '1 day', 'default', 1 from generate_series(0, 20) as days",
        )
        .await;
    refresh_queue_counts(&world).await;
    let minutes = "select count(*) from signaling.minute_stats";
    let kept: i64 = world.ask(minutes).await;
    assert!((8..=9).contains(&kept), "{kept} days are kept");
}

#[tokio::test]
async fn a_hundred_unserved_apps_are_counted_and_none_has_minute_stats() {
    let world = World::new().await;
    world.insert_many(150).await;
    world.set_messages("app = 'mistake-' || id").await;
    refresh_queue_counts(&world).await;
    let counted = "select count(*) from signaling.queue_counts";
    assert_eq!(world.ask::<i64>(counted).await, 100);
    let minutes = "select count(*) from signaling.minute_stats";
    assert_eq!(world.ask::<i64>(minutes).await, 0);
}

#[tokio::test]
async fn messages_do_not_wait_for_a_count() {
    let world = World::new().await;
    world
        .execute(
            "create or replace function signaling.refresh_queue_counts(
                 stale_after interval default '0', ended_before timestamptz default 'infinity') returns boolean
             language sql volatile security definer set search_path = pg_catalog, pg_temp
             as $$ select pg_sleep(60) is null $$",
        )
        .await;
    let is_counting = "select exists (
        select from pg_stat_activity
        where query like '%refresh_queue_counts%' and state = 'active' and pid <> pg_backend_pid())";
    let worker = world.worker().env("WORKER_DATABASE_CONNECTIONS", "1");
    let _worker = worker.start();
    world.until_true(is_counting).await;
    world.insert_many(20).await;
    world.until_all_final().await;
    assert!(world.ask::<bool>(is_counting).await, "the count has ended");
}

/// How long the oldest message of an app had waited at the last count, in seconds.
async fn oldest_s(world: &World, app: &str) -> Option<f64> {
    let oldest = "select extract(epoch from counted_at - oldest_at)::float8
                  from signaling.queue_counts cross join signaling.queue_counts_turn where app = $1";
    sqlx::query_scalar(oldest)
        .bind(app)
        .fetch_one(&world.pool)
        .await
        .expect("the oldest message")
}

#[tokio::test]
async fn the_oldest_message_waits_since_it_could_be_sent_and_no_longer() {
    const HOUR_S: f64 = 3_600.0;
    let world = World::new().await;
    for (app, change, range_s) in [
        // The message was due before its insert.
        (
            "backdated",
            "due_at = now() - interval '1 day'",
            Some(0.0..HOUR_S),
        ),
        (
            "waiting",
            "due_at = now() - interval '5 hours', created_at = now() - interval '4 hours'",
            Some(4.0 * HOUR_S..5.0 * HOUR_S),
        ),
        (
            "was-scheduled",
            "due_at = now() - interval '4 hours', created_at = now() - interval '1 day'",
            Some(4.0 * HOUR_S..5.0 * HOUR_S),
        ),
        (
            "scheduled",
            "due_at = now() + interval '1 day', created_at = now() - interval '1 day'",
            None,
        ),
        // Its first call is under way.
        (
            "first-call",
            "due_at = now() + interval '1 minute', created_at = now() - interval '1 day', claim_id = gen_random_uuid()",
            None,
        ),
        (
            "failing",
            "due_at = now(), created_at = now() - interval '1 day', attempts = 1, sent_at = now(), failing_since = now() - interval '4 hours'",
            Some(4.0 * HOUR_S..5.0 * HOUR_S),
        ),
        // An operator has made it due again.
        (
            "retried",
            "due_at = now(), created_at = now() - interval '1 day', sent_at = now() - interval '1 day'",
            Some(0.0..HOUR_S),
        ),
    ] {
        let id = world.insert(peer(json!({"app": app}))).await;
        world
            .set_messages(&format!("{change} where id = {id}"))
            .await;
        refresh_queue_counts(&world).await;
        let found = oldest_s(&world, app).await;
        let is_expected = match (&range_s, found) {
            (Some(range_s), Some(found)) => range_s.contains(&found),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        assert!(is_expected, "{app}: {found:?}");
    }
}
