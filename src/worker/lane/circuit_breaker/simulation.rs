//! Simulates fleets for 150 seconds, with a fault from second 30 to second 90, and checks the states on the way and at the
//! end. Each worker makes some calls a second, in any order, and reports once a second.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::attempt;
use super::*;

/// The party at fault, in the seconds from 30 to 90.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Culprit {
    None,
    Api,
    /// The first worker.
    Worker,
    /// The first destination.
    Destination,
    /// Any call, with this probability.
    Chance(f64),
}

const FAULT_BEGINS: u64 = 30;
const FAULT_ENDS: u64 = 90;
const END: u64 = 150;

/// The lane's row: the rules of `hold.sql`, `release_hold.sql` and `claim.sql`.
#[derive(Default)]
struct Lane {
    held_since: Option<u64>,
    next_probe_at: u64,
    probes: u32,
    released_at: Option<u64>,
    /// Seconds in which a hold began or ended.
    changes: Vec<u64>,
}

struct Fleet {
    workers: Vec<CircuitBreaker>,
    /// The last report of each worker: accepted messages, and true if it serves the app.
    reported: Vec<(u64, bool)>,
    lane: Lane,
    culprit: Culprit,
    destinations: u64,
    /// A rolling restart: every five seconds from this second on, a worker other than the first is replaced, and its
    /// counters are deleted.
    restarts_from: Option<u64>,
    random: StdRng,
    begun: Instant,
    second: u64,
    /// Failed calls of each worker.
    failures: Vec<u32>,
    /// Charged failures of calls that did not go to the first destination.
    charged: u32,
    calls: u32,
    /// For each worker, the seconds in which it stepped aside or came back.
    aside_changes: Vec<Vec<u64>>,
}

impl Fleet {
    fn new(workers: usize, destinations: u64, culprit: Culprit, seed: u64) -> Self {
        let begun = Instant::now();
        Self {
            workers: vec![CircuitBreaker::new(begun); workers],
            reported: vec![(0, true); workers],
            lane: Lane::default(),
            culprit,
            destinations,
            restarts_from: None,
            random: StdRng::seed_from_u64(seed),
            begun,
            second: 0,
            failures: vec![0; workers],
            charged: 0,
            calls: 0,
            aside_changes: vec![Vec::new(); workers],
        }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.second)
    }

    fn run(mut self, mut check: impl FnMut(&Self)) -> Self {
        while self.second < END {
            self.restart_one();
            // Each worker makes twenty calls and reports once, in any order.
            let mut turns: Vec<(usize, bool)> = (0..self.workers.len())
                .flat_map(|worker| (0..21).map(move |turn| (worker, turn == 0)))
                .collect();
            for last in (1..turns.len()).rev() {
                turns.swap(last, self.random.random_range(0..=last));
            }
            for (worker, is_report) in turns {
                if is_report {
                    self.report(worker);
                } else {
                    self.call(worker);
                }
                self.watch_aside(worker);
            }
            check(&self);
            self.second += 1;
        }
        self
    }

    fn restart_one(&mut self) {
        let since = self
            .restarts_from
            .and_then(|from| self.second.checked_sub(from));
        if let Some(since) = since.filter(|since| since % 5 == 0) {
            let others = self.workers.len() - 1;
            let worker = 1 + usize::try_from(since / 5).expect("few") % others;
            self.workers[worker] = CircuitBreaker::new(self.now());
            self.reported[worker] = (0, true);
        }
    }

    fn watch_aside(&mut self, worker: usize) {
        let changes = &mut self.aside_changes[worker];
        if (changes.len() % 2 == 1) != self.workers[worker].aside_reason().is_some() {
            changes.push(self.second);
        }
    }

    fn call(&mut self, worker: usize) {
        let now = self.now();
        let is_held = self.lane.held_since.is_some();
        let breaker = &mut self.workers[worker];
        if is_held {
            breaker.lane_held();
        } else {
            breaker.lane_free(now);
        }
        if !matches!(breaker.allowance(now, 0), Allowance::Claim(1..)) {
            return;
        }
        if is_held {
            if self.lane.next_probe_at > self.second {
                return;
            }
            // The lane sends no other probe until the API has answered this one.
            self.lane.next_probe_at = self.second + 1;
        }
        let target = self.random.random_range(0..self.destinations);
        let is_at_fault = (FAULT_BEGINS..FAULT_ENDS).contains(&self.second)
            && match self.culprit {
                Culprit::None => false,
                Culprit::Api => true,
                Culprit::Worker => worker == 0,
                Culprit::Destination => target == 0,
                Culprit::Chance(share) => self.random.random_bool(share),
            };
        let outcome = if is_at_fault {
            Outcome::Transient
        } else {
            Outcome::MessageSent
        };
        let kind = match is_held {
            true => AttemptKind::Probe,
            false if self.random.random_bool(0.7) => AttemptKind::First,
            false => AttemptKind::Retry,
        };
        let attempt = attempt(target, kind, outcome);
        let verdict = breaker.observe(attempt, now);
        self.calls += 1;
        self.failures[worker] += u32::from(is_at_fault);
        self.charged += u32::from(is_at_fault && verdict.is_charged && target != 0);
        match verdict.transition {
            Transition::Release => self.release(),
            Transition::Hold(_) => self.hold(true),
            _ => {}
        }
    }

    fn report(&mut self, worker: usize) {
        let now = self.now();
        let breaker = &self.workers[worker];
        let is_serving = !breaker.is_doubting() && breaker.aside_reason().is_none();
        self.reported[worker] = (breaker.accepted_messages, is_serving);
        let others = (0..self.workers.len()).filter(|other| *other != worker);
        let (accepted, serving) = others.fold((0, 0), |(accepted, serving), other| {
            let (of_other, is_serving) = self.reported[other];
            (accepted + of_other, serving + u32::from(is_serving))
        });
        let decision = self.workers[worker].observe_others(accepted, serving, now);
        if !matches!(decision, Transition::Hold(_)) {
            return;
        }
        if self.lane.held_since.is_none() && self.is_too_soon() {
            self.workers[worker].hold_refused(now);
        } else {
            self.hold(false);
            self.workers[worker].lane_held();
        }
    }

    fn is_too_soon(&self) -> bool {
        let released_at = self.lane.released_at;
        released_at.is_some_and(|released_at| self.second < released_at + 10)
    }

    fn hold(&mut self, is_probe: bool) {
        if self.lane.held_since.is_none() {
            self.lane.held_since = Some(self.second);
            self.lane.changes.push(self.second);
        } else if !is_probe {
            return;
        }
        self.lane.next_probe_at = self.second + (1 << self.lane.probes.min(2));
        self.lane.probes += 1;
    }

    fn release(&mut self) {
        self.lane = Lane {
            released_at: Some(self.second),
            changes: std::mem::take(&mut self.lane.changes),
            ..Lane::default()
        };
        self.lane.changes.push(self.second);
    }

    /// No state changes three times within ten seconds.
    fn assert_nothing_flaps(&self) {
        for changes in self.aside_changes.iter().chain([&self.lane.changes]) {
            for three in changes.windows(3) {
                assert!(three[2] - three[0] >= 10, "{changes:?}");
            }
        }
    }

    fn assert_all_serve(&self) {
        assert_eq!(self.lane.held_since, None);
        for worker in &self.workers {
            assert!(matches!(worker.state, State::Serving { .. }), "{worker:?}");
        }
    }
}

/// Chance decides the order of calls, so about one fleet in 10,000 exceeds a bound. With fixed seeds, a failure shows a change
/// of the code. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` simulate other fleets.
fn fixed_seeds() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

proptest! {
    #![proptest_config(fixed_seeds())]

    #[test]
    fn a_dead_api_is_held_by_any_number_of_workers_and_nothing_is_charged(
        workers in 1_usize..5, destinations in prop_oneof![Just(1_u64), Just(3), Just(1_000)], seed: u64,
    ) {
        let fleet = Fleet::new(workers, destinations, Culprit::Api, seed).run(|fleet| {
            if (FAULT_BEGINS + 15..FAULT_ENDS).contains(&fleet.second) {
                assert!(fleet.lane.held_since.is_some(), "not held in second {}", fleet.second);
            }
            if fleet.second >= FAULT_ENDS + 20 {
                fleet.assert_all_serve();
            }
        });
        fleet.assert_nothing_flaps();
        let failures: u32 = fleet.failures.iter().sum();
        assert!(failures < 16 * u32::try_from(workers).expect("few") + 40, "{failures} failed calls");
    }

    #[test]
    fn one_sick_worker_steps_aside_and_holds_no_one(
        workers in 2_usize..5, destinations in prop_oneof![Just(1_u64), Just(1_000)],
        restarts_from in proptest::option::of(20_u64..40), seed: u64,
    ) {
        let mut fleet = Fleet::new(workers, destinations, Culprit::Worker, seed);
        fleet.restarts_from = restarts_from;
        let fleet = fleet.run(|fleet| {
            assert_eq!(fleet.lane.held_since, None, "held in second {}", fleet.second);
            // A report after a restart shows nothing, so the worker needs another one.
            let aside_after = if restarts_from.is_none() { 10 } else { 20 };
            if (FAULT_BEGINS + aside_after..FAULT_ENDS).contains(&fleet.second) {
                assert!(fleet.workers[0].aside_reason().is_some());
            }
            if fleet.second >= FAULT_ENDS + 40 {
                fleet.assert_all_serve();
            }
        });
        fleet.assert_nothing_flaps();
        // Ten votes, the retries between them, and a probe now and then. Of 3,000 fleets, the median was 19 and the maximum 31.
        // The bound leaves room for chance, because each run has other seeds.
        assert!(fleet.failures[0] <= 45, "{} failed calls", fleet.failures[0]);
    }

    #[test]
    fn one_destination_holds_no_app_that_has_others(
        workers in 1_usize..4, destinations in 2_u64..1_000, seed: u64,
    ) {
        let fleet = Fleet::new(workers, destinations, Culprit::Destination, seed).run(|fleet| {
            assert_eq!(fleet.lane.held_since, None, "held in second {}", fleet.second);
            fleet.assert_none_is_aside();
        });
        assert_eq!(fleet.charged, 0);
    }

    #[test]
    fn calls_that_fail_by_chance_hold_no_app(
        workers in 1_usize..4, share in 0.0..0.6, seed: u64,
    ) {
        let fleet = Fleet::new(workers, 1_000, Culprit::Chance(share), seed).run(|_| ());
        assert!(fleet.lane.changes.len() <= 2, "{:?}", fleet.lane.changes);
        fleet.assert_nothing_flaps();
    }

    #[test]
    fn a_fleet_without_a_fault_serves(workers in 1_usize..5, seed: u64) {
        Fleet::new(workers, 1_000, Culprit::None, seed).run(|fleet| {
            assert_eq!(fleet.lane.held_since, None);
            fleet.assert_all_serve();
        });
    }
}

impl Fleet {
    fn assert_none_is_aside(&self) {
        for worker in &self.workers {
            assert_eq!(worker.aside_reason(), None, "{worker:?}");
        }
    }
}
