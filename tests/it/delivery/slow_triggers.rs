//! Triggers of the application that keep one message waiting for longer than a statement may take, and a database that is
//! slow by itself. One message stops its app for seconds, and a slow database is no reason to pass over a message.

use std::time::Duration;

use serde_json::json;

use harness::{Postgres, Worker, World, fleet, peer};

/// Longer than any claim or record waits.
const TRIGGER_S: u32 = 60;
const MAX_ATTEMPTS: usize = 2;

/// Adds a trigger of an application that waits in each change of the message with the payload `slow`.
async fn slow_down(world: &World, condition: &str) {
    world
        .execute(&format!(
            "create function wait() returns trigger language plpgsql as
             $$ begin perform pg_sleep({TRIGGER_S}); return new; end $$;
             create trigger wait before update on signaling.outbox for each row
             when (new.payload = 'slow' and {condition}) execute function wait()"
        ))
        .await;
}

/// Removes the trigger. A statement that waits in it holds a lock on the table until its time is over.
async fn speed_up(world: &World) {
    world.execute("drop trigger wait on signaling.outbox").await;
}

async fn insert(world: &World, payload: &str) -> i64 {
    let message = json!({"payload": payload, "max_attempts": MAX_ATTEMPTS});
    world.insert(peer(message)).await
}

/// A world with fifty messages after one whose claim waits in the trigger. Returns the ID of that one.
async fn world_with_slow_claim() -> (World, i64) {
    let world = World::new().await;
    slow_down(&world, "new.claim_id is not null").await;
    let slow = insert(&world, "slow").await;
    world.insert_many(50).await;
    (world, slow)
}

fn worker(world: &World) -> Worker {
    let worker = world.worker().env("WORKER_REQUEST_TIMEOUT", "200ms");
    let worker = worker.env("WORKER_CONNECT_TIMEOUT", "200ms");
    worker.env("WORKER_LEASE", "3s")
}

#[tokio::test]
async fn a_trigger_that_keeps_one_message_waiting_stops_its_app_for_seconds_only() {
    let (world, slow) = world_with_slow_claim().await;
    let mut worker = worker(&world).start();
    world.until_sent(50).await;
    assert_eq!(world.refused().await, [(slow, Some("57014".into()))]);
    worker.until_logged("messages_refused").await;
    assert!(world.calls_of("slow").is_empty());
    // The app sends at once while the message is passed over.
    world.insert_many(50).await;
    world.until_sent(100).await;
    speed_up(&world).await;
    world.run(&["resume", "default"]).await;
    assert_eq!(world.until_final(slow).await.status, "message_sent");
    assert_eq!(world.calls_of("slow").len(), 1);
    worker.stop().await;
}

/// The claim of one worker locks the row of the lane, and the other workers wait for it.
#[tokio::test]
async fn a_fleet_goes_on_beside_a_message_that_waits_in_a_trigger() {
    let (world, slow) = world_with_slow_claim().await;
    let _workers = fleet(3, || worker(&world)).await;
    world.until_sent(50).await;
    assert_eq!(world.refused().await, [(slow, Some("57014".into()))]);
}

/// Behind a pooler, each call carries its timeout itself.
#[tokio::test]
async fn a_message_that_waits_in_a_trigger_is_found_behind_a_pooler() {
    let (mut world, slow) = world_with_slow_claim().await;
    let _pooler = world.connect_through_pooler("").await;
    let _worker = world.worker().start();
    world.until_sent(50).await;
    assert_eq!(world.refused().await, [(slow, Some("57014".into()))]);
}

#[tokio::test]
async fn several_messages_that_wait_in_a_trigger_do_not_stop_the_rest() {
    let (world, _) = world_with_slow_claim().await;
    for _ in 0..2 {
        insert(&world, "slow").await;
    }
    world.insert_many(20).await;
    let _worker = worker(&world).start();
    world.until_sent(70).await;
    assert!(world.calls_of("slow").is_empty());
}

#[tokio::test]
async fn a_record_that_waits_in_a_trigger_keeps_no_other_from_being_written() {
    let world = World::new().await;
    slow_down(&world, "new.status = 'message_sent'").await;
    let slow = insert(&world, "slow").await;
    world.insert_many(20).await;
    let mut worker = worker(&world).start();
    world.until_sent(20).await;
    worker.until_logged("record_refused").await;
    assert!(worker.log_line("record_refused").contains("57014"));
    let row = world.until_final(slow).await;
    assert_eq!((&*row.status, row.attempts), ("failed", 2));
    assert_eq!(world.calls_of("slow").len(), MAX_ATTEMPTS);
    for call in world.simulator.ledger().calls() {
        let payload = call.payload.unwrap_or_default();
        let calls = world.calls_of(&payload).len();
        assert!(calls == 1 || payload == "slow", "{payload}: {calls}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_message_that_waits_in_a_trigger_keeps_no_other_from_expiring() {
    let world = World::new().await;
    slow_down(&world, "new.status = 'expired'").await;
    let later = world.time_in(600_000).await;
    let past = world.time_in(-1_000).await;
    let overdue =
        |payload: &str| peer(json!({"payload": payload, "due_at": later, "expires_at": past}));
    let slow = world.insert(overdue("slow")).await;
    let fine = world.insert(overdue("fine")).await;
    let worker = worker(&world).start();
    assert_eq!(world.until_final(fine).await.status, "expired");
    assert_eq!(world.row(slow).await.status, "pending");
    worker.until_logged("messages_refused").await;
}

/// Sends a signal to the server processes of the worker's connections.
async fn signal_backends(world: &World, signal: &str) {
    let query = "select pid from pg_stat_activity where datname = current_database()
                 and application_name like 'signaling%'";
    let pids: Vec<i32> = world.column(query).await;
    assert!(!pids.is_empty() || signal == "-CONT");
    let mut kill = std::process::Command::new("kill");
    kill.arg(signal).args(pids.iter().map(ToString::to_string));
    kill.status().expect("kill runs");
}

#[tokio::test]
async fn a_suspended_database_refuses_no_message() {
    let postgres = Postgres::start().await;
    let world = World::on(&postgres, simulator::SimulatorConfig::default()).await;
    // An application's trigger that is quick by itself.
    world
        .execute(
            "create table audit (message_id bigint);
             create function audit() returns trigger language plpgsql as
             $$ begin insert into public.audit values (new.id); return new; end $$;
             create trigger audit before update on signaling.outbox for each row execute function audit()",
        )
        .await;
    let worker = worker(&world).start();
    worker.until_logged("worker_started").await;
    world.until_idle().await;
    for turn in 1..=2 {
        signal_backends(&world, "-STOP").await;
        world.insert_many(200).await;
        // Longer than a claim waits, and than the claim after it that tests one message at a time.
        tokio::time::sleep(Duration::from_secs(11)).await;
        signal_backends(&world, "-CONT").await;
        world.until_sent(200 * turn).await;
    }
    assert_eq!(world.refused().await, []);
    assert_eq!(worker.logged("messages_refused"), 0);
}

/// Each change of a message is slow, as on an overloaded database. The write by which `is_slow` recognises such a database is
/// slow, too.
#[tokio::test]
async fn a_slow_trigger_on_a_slow_database_refuses_no_message() {
    let world = World::new().await;
    slow_down(&world, "new.claim_id is not null").await;
    world
        .execute(
            "create function lag() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$;
             create trigger lag before insert on signaling.refused for each row execute function lag()",
        )
        .await;
    let slow = insert(&world, "slow").await;
    let _worker = worker(&world).start();
    // Of two claims, one has the timeout of a slow database, and the next one searches for a slow message.
    world
        .until_true(
            "select exists (select from pg_stat_activity where query like '%signaling.claim%' and state = 'active'
               and datname = current_database() and clock_timestamp() - query_start > interval '6 seconds')",
        )
        .await;
    assert_eq!(world.refused().await, []);
    speed_up(&world).await;
    assert_eq!(world.until_final(slow).await.status, "message_sent");
}
