//! Workers that are killed or suspended.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use harness::{PATIENCE, Worker, World, fleet, peer, slow_api};

/// A worker with short leases.
fn short_lease(world: &World, name: &str) -> Worker {
    world.worker().env("WORKER_NAME", name).short_leases()
}

/// Inserts a message, and kills the worker `victim` during its call. Returns the message's ID and the end of its lease.
async fn message_of_dead_worker(world: &World, message: Value) -> (i64, OffsetDateTime) {
    world.set_faults(&["hang:count=1"]);
    let id = world.insert(peer(message)).await;
    let mut victim = short_lease(world, "victim").start();
    world.until_accepted(1).await;
    let lease_ends = world.row(id).await.due_at;
    victim.kill().await;
    (id, lease_ends)
}

/// Waits until a worker has claimed messages, and returns its number.
async fn busy_worker(world: &World) -> usize {
    let query = "select (select right(claimed_by, 1)::int from signaling.outbox
                         where status = 'pending' and claim_id is not null
                         group by 1 having count(*) >= 5 order by random() limit 1)";
    let mut busy: Option<i32> = None;
    let is_found = async || {
        busy = world.ask(query).await;
        busy.is_some()
    };
    world.until("a busy worker", PATIENCE, is_found).await;
    usize::try_from(busy.expect("found")).expect("a number")
}

/// The number of calls for each payload.
fn calls_by_payload(world: &World) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for call in world.simulator.ledger().calls() {
        *calls.entry(call.payload.expect("a short one")).or_default() += 1;
    }
    calls
}

async fn outcomes(world: &World, id: i64) -> Vec<(i32, String)> {
    let attempts = world.attempts(id).await.into_iter();
    attempts
        .map(|attempt| (attempt.number, attempt.outcome))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_workers_rows_are_sent_by_others_and_a_message_called_twice_says_why() {
    let world = World::with(slow_api(100)).await;
    let mut fleet = fleet(4, || world.worker().short_leases()).await;
    world.insert_many(600).await;
    world.until_accepted(100).await;
    let victim = busy_worker(&world).await;
    fleet[victim].kill().await;
    world.until_all_sent(600).await;
    let calls = calls_by_payload(&world);
    assert_eq!(calls.len(), 600, "messages that reached the API");
    let of_victim = format!("outcome = 'lost' and claimed_by = 'worker-{victim}'");
    let lost = world.count_attempts(&of_victim).await;
    assert!(lost >= 1, "the victim had messages");
    for (payload, count) in calls.into_iter().filter(|(_, count)| *count > 1) {
        let reason = format!(
            "outcome in ('lost', 'ambiguous')
             and message_id = (select id from signaling.outbox where payload = '{payload}')"
        );
        let reasons = world.count_attempts(&reason).await;
        assert!(reasons >= 1, "{payload}: {count} calls, and no reason");
    }
    // A lost claim counts as an attempt, because the worker may have sent the message.
    assert_eq!(world.count("attempts < 1").await, 0);
}

#[tokio::test]
async fn an_at_most_once_message_of_a_dead_worker_ends_as_unknown() {
    let world = World::new().await;
    let message = json!({"at_most_once": true, "payload": "once"});
    let (id, _) = message_of_dead_worker(&world, message).await;
    let _survivor = short_lease(&world, "survivor").start();
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("unknown", 1));
    assert_eq!(world.calls_of("once").len(), 1);
    let attempts = world.attempts(id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].outcome, "lost");
    assert_eq!(attempts[0].claimed_by.as_deref(), Some("victim"));
}

#[tokio::test]
async fn a_worker_suspended_past_its_lease_overwrites_no_record_of_another() {
    let world = World::with(slow_api(300)).await;
    let id = world.insert(peer(json!({"payload": "twice"}))).await;
    let mut sleeper = short_lease(&world, "sleeper").start();
    world.until_accepted(1).await;
    sleeper.signal("STOP").await;
    let _other = short_lease(&world, "other").start();
    let row = world.until_final(id).await;
    let found = (row.status.as_str(), row.claimed_by.as_deref());
    assert_eq!(found, ("message_sent", Some("other")));
    sleeper.signal("CONT").await;
    // Another message shows that the worker has resumed.
    world.deliver(json!({"payload": "next"})).await;
    sleeper.until_logged("record_late").await;
    let after = world.row(id).await;
    let found = (after.finished_at, after.request_id);
    assert_eq!(found, (row.finished_at, row.request_id));
    assert_eq!(world.calls_of("twice").len(), 2);
    assert_eq!(outcomes(&world, id).await, [(1, "lost".to_owned())]);
}

#[tokio::test]
async fn a_dead_workers_row_is_free_when_its_lease_ends_and_not_before() {
    let world = World::new().await;
    let (id, lease_ends) = message_of_dead_worker(&world, json!({})).await;
    let _survivor = short_lease(&world, "survivor")
        .env("WORKER_POLL_INTERVAL", "60s")
        .start();
    let row = world.until_final(id).await;
    let late = row.sent_at.expect("called") - lease_ends;
    let bounds = time::Duration::ZERO..time::Duration::seconds(2);
    assert!(bounds.contains(&late), "called {late} after the lease");
    assert_eq!(row.attempts, 2, "the first call may have been made");
}

#[tokio::test]
async fn messages_of_unknown_outcome_have_a_status_and_are_retried_by_hand_only() {
    let world = World::new().await;
    world.set_faults(&["drop:destination=bob,count=1"]);
    let unknown = world
        .insert(peer(json!({"payload": "unknown", "at_most_once": true})))
        .await;
    let message = json!({"payload": "sent", "destination": "carol", "at_most_once": true});
    let sent = world.insert(peer(message)).await;
    let _worker = short_lease(&world, "worker").start();
    assert_eq!(world.until_final(unknown).await.status, "unknown");
    assert_eq!(world.until_final(sent).await.status, "message_sent");
    let found = "select id from signaling.outbox where status = 'unknown'";
    assert_eq!(world.column::<i64>(found).await, [unknown]);
    assert_eq!(world.attempts(unknown).await[0].outcome, "ambiguous");

    world.run(&["retry", "--status", "unknown"]).await;
    assert_eq!(world.until_final(unknown).await.status, "message_sent");
    // The API accepted both calls, because the operator retried the message.
    assert_eq!(world.calls_of("unknown").len(), 2);
    assert_eq!(world.calls_of("sent").len(), 1);
}

#[tokio::test]
async fn an_expired_message_of_a_dead_worker_shows_that_it_may_have_been_sent() {
    let world = World::new().await;
    let (id, _) = message_of_dead_worker(&world, json!({})).await;
    world.set_messages("expires_at = now()").await;
    // No claim can end the message in a paused lane. The search for expired messages ends it.
    world.execute("select signaling.pause('default')").await;
    let _survivor = short_lease(&world, "survivor").start();
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("expired", 1));
    assert!(row.error.expect("why").contains("not known"));
    assert_eq!(outcomes(&world, id).await, [(1, "lost".to_owned())]);
}
