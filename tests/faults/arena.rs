//! The place of the faults: a Postgres, the simulated API, a network between them, a fleet, and producers.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::database_proxy::DatabaseProxy;
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::producers::Producers;
use crate::verdict;
use harness::postgres::Settings;
use harness::{Postgres, SchedulerStalls, SteppedClock, World, ask, slow_api};

/// The connections of Postgres: enough for the fleet, and few enough for a test to take all.
const CONNECTIONS: &str = "70";
/// The time from the end of a fault until each worker sends again. A statement on a dead connection ends after up to four
/// seconds, and the next probe of a held lane may be four seconds away. Then the worker connects, claims and waits for slots.
const RECOVERY: Duration = Duration::from_secs(8);
const STEPS_TO_RECOVER: u32 = 20;
/// The time until all messages are final. For a minute after a step of the database's clock, no worker takes over a message
/// whose lease ended after the step.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Arena {
    pub(crate) postgres: Postgres,
    pub(crate) world: World,
    pub(crate) proxy: DatabaseProxy,
    pub(crate) fleet: Fleet,
    /// The clock of Postgres, if a fault sets it.
    pub(crate) database_clock: Option<SteppedClock>,
    stalls: SchedulerStalls,
    /// Of the present round.
    longest_stall: Duration,
    rounds: usize,
}

impl Arena {
    /// Starts an arena for these faults. Programs have a settable clock only if a fault sets it, because each reading of such
    /// a clock reads a file.
    pub(crate) async fn start(faults: &[Fault]) -> Self {
        let clock_for = |fault| SteppedClock::new().filter(|_| faults.contains(&fault));
        let database_clock = clock_for(Fault::DatabaseClockSteps);
        let postgres = Postgres::start_with(Settings {
            server_settings: vec![format!("max_connections={CONNECTIONS}")],
            environment: database_clock
                .as_ref()
                .map(SteppedClock::environment)
                .unwrap_or_default(),
            ..Settings::default()
        })
        .await;
        let mut api = slow_api(20);
        api.behaviour.limit = Some(crate::LIMIT);
        let world = World::on(&postgres, api).await;
        let proxy = DatabaseProxy::open(&world);
        let fleet = Fleet::start(&world, proxy.url.clone(), clock_for(Fault::ClocksStep));
        Self {
            postgres,
            world,
            proxy,
            fleet,
            database_clock,
            stalls: SchedulerStalls::watch(),
            longest_stall: Duration::ZERO,
            rounds: 0,
        }
    }

    /// Injects a fault while producers commit messages, and checks these messages.
    pub(crate) async fn suffer(&mut self, fault: Fault, rng: &mut StdRng, lasting: Duration) {
        self.rounds += 1;
        let round = format!("round-{}-{fault:?}", self.rounds);
        let producers = Producers::start(&self.world.url, &round);
        let calls_before = self.world.seen().calls;
        self.until_all_work("at first").await;
        self.stalls.take_longest();
        self.longest_stall = Duration::ZERO;
        fault.happen(self, rng, lasting).await;
        let recovered_after = self.assert_recovers(&round).await;
        let committed = producers.stop().await;
        let what = format!("{round}: every row is final");
        let are_final = async || self.world.count("status = 'pending'").await == 0;
        self.world.until(&what, PATIENCE, are_final).await;
        self.proxy.bury();
        self.fleet.assert_all_run(&round);
        let account = verdict::judge(&self.world, &round, &committed).await;
        let longest_stall = self.longest_stall.max(self.stalls.take_longest());
        let world = &self.world;
        let busiest_second = verdict::judge_pace(world, &round, calls_before, longest_stall).await;
        assert!(
            account.has_no_repeats() || !fault.is_the_same_for_all(),
            "{round}: a message is repeated although its outcome was known: {account}"
        );
        println!(
            "{fault:?}: {account}, {busiest_second} calls in the busiest second; all workers back after {:.1} s",
            recovered_after.as_secs_f64()
        );
    }

    /// Asserts that each worker sends again in time. Returns the duration.
    pub(crate) async fn assert_recovers(&mut self, round: &str) -> Duration {
        self.longest_stall = self.longest_stall.max(self.stalls.take_longest());
        let recovered_after = self.until_all_work(round).await;
        let stall = self.stalls.take_longest();
        self.longest_stall = self.longest_stall.max(stall);
        // On a busy machine, each of the steps back to work may wait for a processor.
        assert!(
            recovered_after <= RECOVERY + stall * STEPS_TO_RECOVER,
            "{round}: all workers work again after {recovered_after:?}; the longest stall took {stall:?}"
        );
        recovered_after
    }

    /// Waits until each worker has made a call that started after now. Returns the duration.
    async fn until_all_work(&self, round: &str) -> Duration {
        let begun = Instant::now();
        let mut admin = self.admin().await;
        let since: OffsetDateTime = ask(&mut admin, "select clock_timestamp()").await;
        let names = self.fleet.names();
        let statement = "select distinct claimed_by from signaling.outbox
                         where sent_at between $1 and clock_timestamp() and status <> 'pending'";
        let all_work = async || {
            let working = sqlx::query_scalar(statement)
                .bind(since)
                .fetch_all(&self.world.pool);
            let working: Vec<String> = working.await.unwrap_or_default();
            names.iter().all(|name| working.contains(name))
        };
        let what = format!("{round}: each of {names:?} works again");
        self.world.until(&what, PATIENCE, all_work).await;
        begun.elapsed()
    }

    /// A connection that bypasses the proxy.
    pub(crate) async fn admin(&self) -> PgConnection {
        self.world.connect().await
    }

    pub(crate) async fn stop(mut self) {
        self.fleet.stop().await;
        self.world.pool.close().await;
        self.postgres.cluster.stop().await.expect("stopped");
    }
}
