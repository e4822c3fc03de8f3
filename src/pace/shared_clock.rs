//! The estimate of the database's clock that all lanes of a process share, and the consequences of a step of that clock.
//!
//! The clock of a database jumps when an administrator or NTP sets it, and when a failover leads to another server. Slots,
//! leases and expiries are times on that clock. After each step, the process
//!
//! - releases every message that waits for a slot, and claims nothing for [`CLAIM_PAUSE`]. Until then other workers may still
//!   use slots of the old time, and slots of both times together would exceed the limit;
//! - treats only those leases and expiries as over that were over before the step, for [`STEADY_AFTER`]. Otherwise a step
//!   ahead would repeat every call in flight, and a clock that is wrong for ten seconds would expire messages.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::ClockReading;
use super::{ClockStep, DbClock, DbTime, HORIZON, Lookahead};

/// No slot lies further ahead.
const CLAIM_PAUSE: Duration = HORIZON.saturating_add(Lookahead::MAX);
/// How long after a step leases and expiries go by the clock again. A longer lease prolongs this time.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// Bounds the memory of steps. A clock that is set more often counts as steady sooner.
const MAX_STEPS: usize = 16;
/// If Postgres runs a claim later than this after its request, the claim treats fewer leases as over than it could.
const MAX_CLAIM_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct SharedClock {
    state: Mutex<State>,
    last_step: watch::Sender<Option<ClockStep>>,
}

#[derive(Debug, Default)]
struct State {
    clock: Option<DbClock>,
    /// Recent steps: when this process noticed each, and the earlier of its two times, which is over on both clocks.
    steps: VecDeque<(Instant, DbTime)>,
}

impl SharedClock {
    pub(crate) fn observe(&self, reading: ClockReading) {
        let mut state = self.state.lock();
        let Some(clock) = &mut state.clock else {
            state.clock = Some(DbClock::new(reading));
            return;
        };
        let Some(step) = clock.observe(reading) else {
            return;
        };
        if state.steps.len() == MAX_STEPS {
            state.steps.pop_front();
        }
        let ended_before = step.before.min(step.after);
        state.steps.push_back((reading.answered, ended_before));
        drop(state);
        self.last_step.send_replace(Some(step));
    }

    /// Reports a step back that a claim found in the lane's row. A process that started after the step has no reading from
    /// before it. A process that noticed a step itself ignores the report.
    pub(crate) fn database_was_set_back(&self, at: DbTime, by: Duration) {
        if self.state.lock().steps.is_empty() {
            self.last_step.send_replace(Some(ClockStep {
                before: at + by,
                after: at,
            }));
        }
    }

    /// None before the first reading.
    pub(crate) fn get(&self) -> Option<DbClock> {
        self.state.lock().clock
    }

    pub(crate) fn steps(&self) -> watch::Receiver<Option<ClockStep>> {
        self.last_step.subscribe()
    }

    pub(crate) fn no_claims_until(&self) -> Option<Instant> {
        Some(self.get()?.stepped_at? + CLAIM_PAUSE)
    }

    /// Leases and expiries up to this time of the database are certainly over; none before the first reading.
    pub(crate) fn ended_before(&self, now: Instant, lease: Duration) -> Option<DbTime> {
        let state = self.state.lock();
        let by_estimate = state.clock?.at(now) + MAX_CLAIM_DELAY;
        let unsteady_for = STEADY_AFTER.max(lease);
        let is_recent = |noticed_at| now.saturating_duration_since(noticed_at) < unsteady_for;
        let steps = state.steps.iter();
        steps
            .filter(|(noticed_at, _)| is_recent(*noticed_at))
            .map(|(_, ended_before)| *ended_before)
            .chain([by_estimate])
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Moment;
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);
    const AT: DbTime = DbTime::from_micros(1_000_000_000);

    /// A clock that has shown `AT` at `base`.
    fn shared_clock(base: Instant) -> SharedClock {
        let clock = SharedClock::default();
        show(&clock, base, AT);
        clock
    }

    fn show(clock: &SharedClock, instant: Instant, shown: DbTime) {
        let moment = Moment {
            instant,
            wall: std::time::SystemTime::UNIX_EPOCH,
        };
        clock.observe(ClockReading {
            asked: moment,
            answered: instant,
            shown,
        });
    }

    #[test]
    fn a_steady_clock_counts_at_once() {
        let base = Instant::now();
        let clock = shared_clock(base);
        let later = base + SECOND * 40;
        show(&clock, later, AT + SECOND * 40);
        assert_eq!(
            clock.ended_before(later, LEASE),
            Some(AT + SECOND * 40 + MAX_CLAIM_DELAY)
        );
        assert_eq!(clock.no_claims_until(), None);
    }

    #[test]
    fn a_step_ahead_ends_no_lease_that_runs_and_counts_once_the_clock_was_steady() {
        let base = Instant::now();
        let clock = shared_clock(base);
        let hour = SECOND * 3600;
        // Before this process notices the step, the next claim uses the estimate.
        let at_step = base + SECOND * 2;
        assert_eq!(
            clock.ended_before(at_step, LEASE),
            Some(AT + SECOND * 2 + MAX_CLAIM_DELAY)
        );
        show(&clock, at_step, AT + SECOND * 2 + hour);
        assert_eq!(clock.no_claims_until(), Some(at_step + CLAIM_PAUSE));
        for seconds in [0, 30, 59] {
            let now = at_step + SECOND * seconds;
            assert_eq!(clock.ended_before(now, LEASE), Some(AT + SECOND * 2));
        }
        let steady = at_step + STEADY_AFTER;
        assert_eq!(
            clock.ended_before(steady, LEASE),
            Some(AT + SECOND * 2 + hour + STEADY_AFTER + MAX_CLAIM_DELAY)
        );
        assert_eq!(
            clock.ended_before(steady, LEASE * 4),
            Some(AT + SECOND * 2),
            "a longer lease may still run"
        );
    }

    #[test]
    fn a_clock_that_is_ahead_for_ten_seconds_ends_nothing() {
        let base = Instant::now();
        let clock = shared_clock(base);
        let hour = SECOND * 3600;
        show(&clock, base + SECOND, AT + SECOND + hour);
        show(&clock, base + SECOND * 11, AT + SECOND * 11);
        for seconds in [11, 40, 60] {
            let now = base + SECOND * seconds;
            let over = clock.ended_before(now, LEASE).expect("read");
            assert!(over <= AT + SECOND * seconds, "after {seconds} s");
        }
    }

    #[test]
    fn a_clock_that_is_set_over_and_over_still_lets_time_pass() {
        let base = Instant::now();
        let clock = shared_clock(base);
        for minute in 1..30 {
            let shown = AT + SECOND * (60 * minute + minute % 2);
            show(&clock, base + SECOND * 60 * minute, shown);
        }
        let over = clock.ended_before(base + SECOND * 60 * 29, LEASE);
        assert!(over >= Some(AT + SECOND * 60 * 27), "{over:?}");
    }
}
