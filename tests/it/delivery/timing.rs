//! When calls are made. The workers here poll only once a minute: what is on time is not found by chance.

use serde_json::json;

use testkit::{World, peer, warm_up};

/// Far more than it takes, and far less than a poll.
const PROMPT: time::Duration = time::Duration::seconds(2);

#[tokio::test]
async fn a_scheduled_message_is_called_when_it_is_due_and_not_before() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    worker.until_logged("worker_started").await;
    world.until_idle().await;
    let mut ids = Vec::new();
    // The later one first: what is due sooner has to move up the alarm.
    for ms in [2_500, 1_500] {
        ids.push(
            world
                .insert(peer(json!({"due_at": world.time_in(ms).await})))
                .await,
        );
    }
    for id in ids {
        let row = world.until_final(id).await;
        assert!(
            row.lateness() >= time::Duration::ZERO,
            "early by {}",
            -row.lateness()
        );
        assert!(row.lateness() < PROMPT, "late by {}", row.lateness());
        // On a busy machine the insert itself comes late.
        let waited = row.sent_at.expect("called") - row.created_at;
        assert!(waited >= time::Duration::milliseconds(500), "{waited}");
    }
}

#[tokio::test]
async fn a_message_scheduled_before_the_worker_started_is_sent_when_it_is_due() {
    let world = World::new().await;
    let id = world
        .insert(peer(json!({"due_at": world.time_in(1_500).await})))
        .await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    let row = world.until_final(id).await;
    assert!(
        (time::Duration::ZERO..PROMPT).contains(&row.lateness()),
        "late by {}",
        row.lateness()
    );
}

#[tokio::test]
async fn a_retry_is_called_when_it_is_due() {
    let world = World::new().await;
    let _worker = world
        .worker()
        .env("WORKER_POLL_INTERVAL", "60s")
        .env("WORKER_RETRY_BASE", "400ms")
        .env("WORKER_RETRY_CAP", "3s")
        .start();
    // While no message is accepted, the app is held, and a probe does not wait for the retry's time.
    warm_up(&world).await;
    world.set_faults(&["500:first_calls=2"]);
    let id = world.insert(peer(json!({"payload": "again"}))).await;
    let row = world.until_final(id).await;
    assert_eq!(row.attempts, 3);
    let at_ms: Vec<u64> = world
        .calls_of("again")
        .iter()
        .map(|call| call.at_us / 1_000)
        .collect();
    let pauses_ms = [at_ms[1] - at_ms[0], at_ms[2] - at_ms[1]];
    // The delay doubles, each spread by half to both sides.
    for (pause_ms, least_ms, most_ms) in [(pauses_ms[0], 200, 600), (pauses_ms[1], 400, 1_200)] {
        // The clocks of the database and of the simulator may drift apart by a little.
        assert!(pause_ms >= least_ms - 20, "after {pause_ms} ms");
        assert!(pause_ms < most_ms + 2_000, "after {pause_ms} ms");
    }
}

/// Slots are given out in that order. Calls may start a few milliseconds after their slots, and so change places with
/// their neighbours.
#[tokio::test]
async fn messages_are_called_about_in_the_order_in_which_they_are_due() {
    let world = World::new().await;
    world.insert_many(100).await;
    let urgent = world
        .insert(peer(json!({"due_at": "2001-01-01", "payload": "urgent"})))
        .await;
    let _worker = world.worker().start();
    world.until_all_final().await;
    let order: Vec<i64> = world
        .ask("select array_agg(id order by sent_at, id) from signaling.outbox")
        .await;
    let place = |id: i64| order.iter().position(|called| *called == id);
    assert!(place(urgent) < Some(20), "{order:?}");
    let sum_of_places = |ids: std::ops::RangeInclusive<i64>| ids.filter_map(place).sum::<usize>();
    assert!(sum_of_places(1..=50) < sum_of_places(51..=100), "{order:?}");
}
