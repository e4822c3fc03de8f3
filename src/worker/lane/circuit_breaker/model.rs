//! Explores every order of calls and reports of two workers for some seconds. One party is at fault for the whole time: one
//! destination, or one worker. The property is that the lane is never held, and that the party at fault is found.

use super::tests::attempt;
use super::*;
use crate::model::explorer::{Model, Property, explore};

const WORKERS: usize = 2;
/// The destination that fails, and two that do not.
const BAD: u64 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Culprit {
    Destination,
    /// The first worker.
    Worker,
}

/// Some calls of a worker, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// One message to a destination that is not at fault.
    Good,
    /// Many first attempts to the destination at fault, and nothing in between.
    Bad,
    /// Retries to the destination at fault.
    BadRetries,
    /// The two kinds in turn.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Call {
        worker: usize,
        calls: Calls,
    },
    Report {
        worker: usize,
    },
    /// The next second.
    Tick,
}

#[derive(Clone, Hash)]
struct State {
    workers: Vec<CircuitBreaker>,
    /// The last report of each worker: accepted messages, and true if it serves the app.
    reported: Vec<(u64, bool)>,
    /// True for each worker that has called, or has reported, in this second.
    has_called: Vec<bool>,
    has_reported: Vec<bool>,
    second: u64,
    is_held: bool,
}

struct Fleet {
    begun: Instant,
    culprit: Culprit,
    seconds: u64,
}

impl Fleet {
    fn now(&self, state: &State) -> Instant {
        self.begun + Duration::from_secs(state.second)
    }

    fn call(&self, state: &mut State, worker: usize, target: u64, kind: AttemptKind) {
        let now = self.now(state);
        let breaker = &mut state.workers[worker];
        if !matches!(breaker.allowance(now, 0), Allowance::Claim(1..)) {
            return;
        }
        let fails = match self.culprit {
            Culprit::Destination => target == BAD,
            Culprit::Worker => worker == 0,
        };
        let outcome = if fails {
            Outcome::Transient
        } else {
            Outcome::MessageSent
        };
        let attempt = attempt(target, kind, outcome);
        breaker.observe(attempt, now);
    }

    fn report(&self, state: &mut State, worker: usize) {
        let now = self.now(state);
        let breaker = &state.workers[worker];
        let is_serving = !breaker.is_doubting() && breaker.aside_reason().is_none();
        state.reported[worker] = (breaker.accepted_messages, is_serving);
        let (accepted, serving) = state.reported[1 - worker];
        let decision = state.workers[worker].observe_others(accepted, serving.into(), now);
        state.is_held |= matches!(decision, Transition::Hold(_));
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn initial_state(&self) -> State {
        let mut state = State {
            workers: vec![CircuitBreaker::new(self.begun); WORKERS],
            reported: vec![(0, true); WORKERS],
            has_called: vec![false; WORKERS],
            has_reported: vec![false; WORKERS],
            second: 0,
            is_held: false,
        };
        // Before the fault, the API has accepted messages of both workers.
        for worker in 0..WORKERS {
            let healthy = Self {
                culprit: Culprit::Destination,
                ..*self
            };
            for target in 1..40 {
                healthy.call(&mut state, worker, target, AttemptKind::First);
            }
        }
        state
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..WORKERS {
            if !state.has_called[worker] {
                let all: &[Calls] = match self.culprit {
                    Culprit::Worker => &[Calls::Good, Calls::Bad],
                    Culprit::Destination => {
                        &[Calls::Good, Calls::Bad, Calls::BadRetries, Calls::Mixed]
                    }
                };
                actions.extend(all.iter().map(|&calls| Action::Call { worker, calls }));
            }
            if !state.has_reported[worker] {
                actions.push(Action::Report { worker });
            }
        }
        let is_over = |done: &[bool]| done.iter().all(|done| *done);
        if is_over(&state.has_called)
            && is_over(&state.has_reported)
            && state.second + 1 < self.seconds
        {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> State {
        let mut state = state.clone();
        match action {
            Action::Call { worker, calls } => {
                state.has_called[worker] = true;
                match calls {
                    Calls::Good => self.call(&mut state, worker, 1, AttemptKind::First),
                    Calls::Bad => {
                        // The calls of a worker at fault go to different destinations.
                        for number in 0..10 {
                            let target = match self.culprit {
                                Culprit::Destination => BAD,
                                Culprit::Worker => number,
                            };
                            self.call(&mut state, worker, target, AttemptKind::First);
                        }
                    }
                    Calls::BadRetries => {
                        for _ in 0..10 {
                            self.call(&mut state, worker, BAD, AttemptKind::Retry);
                        }
                    }
                    Calls::Mixed => {
                        for _ in 0..4 {
                            self.call(&mut state, worker, BAD, AttemptKind::First);
                            self.call(&mut state, worker, 2, AttemptKind::First);
                            self.call(&mut state, worker, BAD, AttemptKind::Retry);
                        }
                    }
                }
            }
            Action::Report { worker } => {
                state.has_reported[worker] = true;
                self.report(&mut state, worker);
            }
            Action::Tick => {
                state.has_called.fill(false);
                state.has_reported.fill(false);
                state.second += 1;
            }
        }
        state
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(
            "an app whose other calls are accepted is not held",
            |_, state: &State| !state.is_held,
        )];
        if self.culprit == Culprit::Worker {
            properties.push(Property::sometimes(
                "the worker at fault steps aside",
                |_, state: &State| state.workers[0].aside_reason().is_some(),
            ));
        }
        properties.push(Property::always(
            "the other worker serves the app",
            |_, state: &State| state.workers[1].aside_reason().is_none(),
        ));
        properties
    }
}

fn assert_holds(culprit: Culprit, seconds: u64) {
    let fleet = Fleet {
        begun: Instant::now(),
        culprit,
        seconds,
    };
    let found = explore(&fleet);
    println!("{culprit:?}: {} states", found.states);
    for failure in &found.failures {
        eprintln!("{failure}");
    }
    assert!(found.failures.is_empty());
}

#[test]
fn one_destination_at_fault_is_never_taken_for_the_api() {
    assert_holds(Culprit::Destination, 3);
}

#[test]
fn one_worker_at_fault_steps_aside_in_every_order_of_events() {
    assert_holds(Culprit::Worker, 6);
}
