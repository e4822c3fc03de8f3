//! The clock of the database is set while workers send.

use std::time::{Duration, Instant};

use serde_json::json;

use harness::postgres::Settings;
use harness::{
    PATIENCE, Postgres, Running, SchedulerStalls, SteppedClock, World, fleet, peer, slow_api,
};

/// Calls a second.
const LIMIT: u32 = 100;
const HOUR_S: f64 = 3600.0;
/// The longest time without calls after a step, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(10);

/// A world whose database goes by a clock that can be set.
struct SteppedWorld {
    world: World,
    clock: SteppedClock,
    _postgres: Postgres,
}

impl SteppedWorld {
    /// None if this machine has no libfaketime.
    async fn new(latency_ms: u64) -> Option<Self> {
        let Some(clock) = SteppedClock::new() else {
            harness::skip("steps of the database's clock: this machine has no libfaketime");
            return None;
        };
        let postgres = Postgres::start_with(Settings {
            environment: clock.environment(),
            ..Settings::default()
        })
        .await;
        let world = World::on(&postgres, slow_api(latency_ms)).await;
        Some(Self {
            world,
            clock,
            _postgres: postgres,
        })
    }

    async fn fleet(&self, count: usize) -> Vec<Running> {
        let rate = LIMIT.to_string();
        fleet(count, || self.world.worker().env("WORKER_RATE", &rate)).await
    }

    /// Sends messages until each of two workers has sent some, and so has read the clock.
    async fn until_both_have_sent(&self) {
        self.world.assert_sends().await;
        self.world
            .until("both workers have sent", PATIENCE, async || {
                self.world.insert_many(20).await;
                self.world.until_all_final().await;
                self.world.count("claimed_by = 'worker-0'").await > 0
                    && self.world.count("claimed_by = 'worker-1'").await > 0
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_clock_costs_seconds_repeats_no_call_and_keeps_the_limit() {
    let Some(stepped) = SteppedWorld::new(300).await else {
        return;
    };
    let world = &stepped.world;
    let workers = stepped.fleet(2).await;
    world.assert_sends().await;
    let stalls = SchedulerStalls::watch();
    world.insert_many(2_000).await;
    for ahead_s in [HOUR_S, 0.0, -HOUR_S, 0.0, 5.0, 0.0] {
        world.until_accepted(world.seen().accepted + 30).await;
        stepped.clock.set(ahead_s);
        let step = Instant::now();
        world.until_accepted(world.seen().accepted + 60).await;
        let took = step.elapsed();
        assert!(
            took < RECOVERY,
            "{took:?} until 60 messages were accepted after a step to {ahead_s} s"
        );
    }
    for worker in &workers {
        worker.until_logged("clock_stepped").await;
    }
    world.until_all_sent(2_001).await;
    world.assert_no_repeats(2_001);
    let lost = world.count_attempts("true").await;
    assert_eq!(lost, 0, "no message in flight counts as lost");
    let busiest = world.busiest_second();
    let longest_stall = stalls.take_longest();
    assert!(
        busiest <= u64::from(LIMIT) || longest_stall > SchedulerStalls::TOLERABLE,
        "{busiest} calls in a second, on a machine that stood still for {longest_stall:?}"
    );
}

#[tokio::test]
async fn a_clock_that_is_ahead_for_a_moment_ends_no_message() {
    let Some(stepped) = SteppedWorld::new(0).await else {
        return;
    };
    let world = &stepped.world;
    let workers = stepped.fleet(2).await;
    stepped.until_both_have_sent().await;
    world.simulator.behaviour().latency = Duration::from_secs(3);
    let before = world.seen().calls;
    let in_flight = world.insert(peer(json!({"at_most_once": true}))).await;
    world.until_calls(before + 1).await;
    let (due_at, expires_at) = (world.time_in(5_000).await, world.time_in(600_000).await);
    let message = json!({"due_at": due_at, "expires_at": expires_at});
    let waiting = world.insert(peer(message)).await;
    stepped.clock.set(HOUR_S);
    for worker in &workers {
        worker.until_logged("clock_stepped").await;
    }
    assert_eq!(world.until_final(in_flight).await.status, "message_sent");
    assert_eq!(world.row(waiting).await.status, "pending");
    stepped.clock.set(0.0);
    assert_eq!(world.until_final(waiting).await.status, "message_sent");
    assert_eq!(world.seen().calls, before + 2);
}

#[tokio::test]
async fn messages_of_a_clock_that_was_ahead_are_sent_by_later_workers_too() {
    let Some(stepped) = SteppedWorld::new(0).await else {
        return;
    };
    let world = &stepped.world;
    stepped.clock.set(HOUR_S);
    let mut workers = stepped.fleet(1).await;
    world.assert_sends().await;
    world.set_faults(&["500"]);
    let retry = world.insert(peer(json!({}))).await;
    world
        .until_count(1, "uncharged + attempts > 0 and status = 'pending'")
        .await;
    for worker in &mut workers {
        worker.kill().await;
    }
    let inserted = world.insert(peer(json!({}))).await;
    stepped.clock.set(0.0);
    world.set_faults(&[]);
    let started = Instant::now();
    let _worker = stepped.fleet(1).await;
    for id in [retry, inserted] {
        assert_eq!(world.until_final(id).await.status, "message_sent");
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(75), "{took:?}, and not an hour");
}

#[tokio::test]
async fn a_correction_of_due_times_that_fails_again_and_again_is_logged() {
    let Some(stepped) = SteppedWorld::new(0).await else {
        return;
    };
    let world = &stepped.world;
    let workers = stepped.fleet(1).await;
    world.assert_sends().await;
    world
        .execute(
            "create or replace function signaling.set_messages_back(
                app text, lease interval, of_retries boolean, after_at timestamptz, after_id bigint,
                out changed integer, out last_at timestamptz, out last_id bigint)
             language plpgsql as $$ begin raise exception 'refused'; end $$",
        )
        .await;
    stepped.clock.set(-HOUR_S);
    workers[0].until_logged("lane_update_failed").await;
    world.assert_sends().await;
}
