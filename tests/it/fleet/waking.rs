//! An idle worker finds messages by notifications and by polls.

use serde_json::json;

use testkit::{PATIENCE, World, ask};

/// Far less than a poll interval of a minute.
const PROMPT: time::Duration = time::Duration::seconds(2);

/// Inserts a message, and asserts that it is sent soon after.
async fn is_sent_promptly(world: &World, message: serde_json::Value) {
    let (_, row) = world.deliver(message).await;
    let latency = row.sent_at.expect("called") - row.created_at;
    assert!(latency < PROMPT, "called {latency} after the insert");
}

#[tokio::test]
async fn an_insert_notifies_an_idle_worker() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    // After the first polls, which are short, only a notification is prompt.
    for number in 0..8 {
        is_sent_promptly(&world, json!({"payload": format!("notify {number}")})).await;
    }
}

#[tokio::test]
async fn polling_alone_is_enough() {
    let world = World::new().await;
    world
        .execute("alter table signaling.outbox disable trigger notify_workers")
        .await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "200ms").start();
    world.until_idle().await;
    for number in 0..5 {
        is_sent_promptly(&world, json!({"payload": format!("quiet {number}")})).await;
    }
}

#[tokio::test]
async fn a_message_committed_after_the_worker_became_idle_is_found_soon() {
    let world = World::new().await;
    let mut open = world.pool.begin().await.expect("a transaction");
    let query = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'late')
                 returning id";
    let id: i64 = ask(&mut open, query).await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    assert_eq!(world.seen().calls, 0);
    open.commit().await.expect("committed");
    let begun = std::time::Instant::now();
    world.until_final(id).await;
    let took = begun.elapsed();
    assert!(
        took < std::time::Duration::from_secs(10),
        "found after {took:?}"
    );
}

#[tokio::test]
async fn an_idle_worker_writes_nothing() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "20ms").start();
    world.until_idle().await;
    let polls = async || {
        world
            .ask::<i64>(
                "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where relname = 'outbox'",
            )
            .await
    };
    let version = async || {
        world
            .ask::<String>("select xmin::text || ctid::text from signaling.lane")
            .await
    };
    let (before, polls_before) = (version().await, polls().await);
    let holds = async || polls().await >= polls_before + 5;
    world.until("five polls", PATIENCE, holds).await;
    assert_eq!(version().await, before, "the lane's row was written");
}

#[tokio::test]
async fn a_message_that_was_due_long_before_its_insert_is_sent_at_once() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    for number in 0..4 {
        let earlier = world.time_in(-60_000 * (number + 1)).await;
        is_sent_promptly(&world, json!({"due_at": earlier})).await;
    }
}

#[tokio::test]
async fn a_message_committed_long_after_its_due_time_is_found_while_others_flow() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    let mut open = world.pool.begin().await.expect("a transaction");
    let query = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'late')
                 returning id";
    let id: i64 = ask(&mut open, query).await;
    // Longer than a claim looks back.
    let past = "select clock_timestamp() > now() + interval '3 seconds'";
    while !sqlx::query_scalar::<_, bool>(past)
        .fetch_one(&mut *open)
        .await
        .expect("an answer")
    {
        world.deliver(json!({})).await;
    }
    open.commit().await.expect("committed");
    let begun = std::time::Instant::now();
    while world.row(id).await.status == "pending" {
        world.deliver(json!({})).await;
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }
    assert_eq!(world.row(id).await.status, "message_sent");
}
