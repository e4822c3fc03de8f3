//! The database's clock, the only one that processes compare, and this process's estimate of it.

use std::time::{Duration, Instant, SystemTime};

use super::DbTime;

/// Now, on both of this host's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The clock that measures times. It stands still while the host sleeps.
    pub(crate) instant: Instant,
    /// The clock that people read. It goes on, and can be set.
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "compared with itself alone, to notice that the host has slept"
        )]
        let wall = SystemTime::now();
        Self {
            instant: Instant::now(),
            wall,
        }
    }
}

/// One reading of the database's clock, with when this process asked for it and had it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockReading {
    /// Just before the statement was sent.
    pub(crate) asked: Moment,
    /// Just after its answer came.
    pub(crate) answered: Moment,
    /// What the database's clock showed in between.
    pub(crate) shown: DbTime,
}

impl ClockReading {
    /// By how much an estimate from this reading may be wrong at a later time.
    fn error_at(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.answered.instant);
        self.round_trip() / 2 + age.mul_f64(DRIFT)
    }

    fn round_trip(&self) -> Duration {
        self.answered
            .instant
            .saturating_duration_since(self.asked.instant)
    }
}

/// How far two clocks drift apart at worst, as a share of the time: a crystal is good for some 50 millionths.
const DRIFT: f64 = 100e-6;

/// This process's estimate of the database's clock: the reading with the least possible error, taken as shown
/// halfway. That error is half of its round trip, and the drift since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DbClock {
    best: ClockReading,
    newest: ClockReading,
    stepped_at: Option<Instant>,
}

/// The database's clock was set, or its server was replaced by one with another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockStep {
    /// The time that the estimate expected at this reading.
    pub(crate) before: DbTime,
    /// The time that the clock shows.
    pub(crate) after: DbTime,
}

impl ClockStep {
    pub(crate) fn is_back(&self) -> bool {
        self.after < self.before
    }
}

/// The process ignores a smaller step, because it is within the tolerance of the pace: see [`TOLERANCE`](super::TOLERANCE).
const LEAST_STEP: Duration = Duration::from_millis(10);
/// How fast a clock may be slewed without a step, as a share of the time: chrony's default maximum is a twelfth. Without
/// this allowance, a worker would find a step in each reading while the clock is slewed, and never send.
const SLEW: f64 = 0.1;
/// The longest time between two readings for which the process assumes that rate.
const MAX_SLEWING: Duration = Duration::from_secs(1);
/// The rate of slewing that the process assumes for any longer time: NTP slews by up to 500 ppm.
const LASTING_SLEW: f64 = 1e-3;

/// By how much a process's two ways to measure a time may differ: an [`Instant`] stands still while a host sleeps or
/// a virtual machine is paused, and the host's clock does not.
const MAX_SUSPENSION: Duration = Duration::from_millis(50);

impl DbClock {
    /// A clock from its first reading.
    pub(crate) fn new(reading: ClockReading) -> Self {
        Self {
            best: reading,
            newest: reading,
            stepped_at: None,
        }
    }

    /// Takes in a reading that a statement brought along. Returns the step if the database's clock was set.
    pub(crate) fn observe(&mut self, reading: ClockReading) -> Option<ClockStep> {
        let age = reading
            .answered
            .instant
            .saturating_duration_since(self.newest.answered.instant);
        self.newest = reading;
        let now = reading.answered.instant;
        // A reading that can't be reconciled with the estimate means that a clock was set, or that this host slept.
        let slack = self.best.round_trip() + Duration::from_millis(2);
        let (earliest, latest) = (self.at(reading.asked.instant), self.at(now));
        let (back, ahead) = (
            earliest.since(reading.shown + slack),
            reading.shown.since(latest + slack),
        );
        let off = back.max(ahead);
        let explained = age.min(MAX_SLEWING).mul_f64(SLEW) + age.mul_f64(LASTING_SLEW);
        let is_step = off > LEAST_STEP + explained;
        let step = is_step.then_some(ClockStep {
            before: latest,
            after: reading.shown,
        });
        if off > Duration::ZERO || reading.error_at(now) <= self.best.error_at(now) {
            self.best = reading;
        }
        if is_step {
            self.stepped_at = Some(now);
        }
        step
    }

    /// When this process noticed the last step of the database's clock. Slots of claims that began earlier are void.
    pub(crate) fn stepped_at(&self) -> Option<Instant> {
        self.stepped_at
    }

    /// Whether this process has, or may have, stood still without noticing since the newest reading was asked for: an
    /// answer that was on its way meanwhile is as old as the standstill was long. The estimate is then behind the
    /// database's clock, and worth nothing until the next reading.
    pub(crate) fn was_suspended(&self, now: Moment) -> bool {
        let read_at = self.newest.asked;
        let measured = now.instant.saturating_duration_since(read_at.instant);
        match now.wall.duration_since(read_at.wall) {
            Ok(passed) => passed.abs_diff(measured) > MAX_SUSPENSION,
            // The host's clock was set back: nothing can be said.
            Err(_) => true,
        }
    }

    fn reference(&self) -> Instant {
        self.best.asked.instant + self.best.round_trip() / 2
    }

    /// What the database's clock shows at a moment of this process.
    pub(crate) fn at(&self, instant: Instant) -> DbTime {
        let reference = self.reference();
        match instant.checked_duration_since(reference) {
            Some(after) => self.best.shown + after,
            None => self.best.shown - reference.saturating_duration_since(instant),
        }
    }

    /// When, for this process, the database's clock shows a time. A time before this process's own clock began is
    /// its beginning.
    pub(crate) fn instant_of(&self, at: DbTime) -> Instant {
        let reference = self.reference();
        if at >= self.best.shown {
            // An `Instant` ends a few centuries from now, and a slot that far ahead is missed in any case.
            reference
                .checked_add(at.since(self.best.shown))
                .unwrap_or(reference)
        } else {
            reference
                .checked_sub(self.best.shown.since(at))
                .unwrap_or(reference)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(base: Instant, instant_ms: u64, wall_ms: u64) -> Moment {
        Moment {
            instant: base + Duration::from_millis(instant_ms),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms),
        }
    }

    fn reading(base: Instant, asked_ms: u64, answered_ms: u64, shown_ms: i64) -> ClockReading {
        ClockReading {
            asked: moment(base, asked_ms, asked_ms),
            answered: moment(base, answered_ms, answered_ms),
            shown: DbTime::from_micros(shown_ms * 1_000),
        }
    }

    #[test]
    fn a_quicker_reading_replaces_a_slower_one_and_not_the_other_way_round() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 10, 1_000_005));
        clock.observe(reading(base, 100, 102, 1_000_101));
        assert_eq!(
            clock.at(base + Duration::from_millis(101)),
            DbTime::from_micros(1_000_101_000)
        );
        clock.observe(reading(base, 200, 210, 1_000_209));
        assert_eq!(
            clock.at(base + Duration::from_millis(201)),
            DbTime::from_micros(1_000_201_000)
        );
    }

    #[test]
    fn an_old_reading_gives_way_to_a_slower_new_one() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 1, 1_000_000));
        clock.observe(reading(base, 30_000, 30_004, 1_030_003));
        assert_eq!(
            clock.at(base + Duration::from_millis(30_002)),
            DbTime::from_micros(1_030_003_000)
        );
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once_and_the_step_is_reported() {
        let base = Instant::now();
        let ms = |ms: i64| DbTime::from_micros(ms * 1_000);
        let mut clock = DbClock::new(reading(base, 0, 1, 1_000_000));
        let step = clock.observe(reading(base, 1_000, 1_040, 5_000_000));
        let step = step.expect("a step ahead");
        assert_eq!(step.after, ms(5_000_000));
        assert!(!step.is_back());
        assert_eq!(clock.at(base + Duration::from_millis(1_020)), ms(5_000_000));
        let step = clock.observe(reading(base, 2_000, 2_050, 1_002_000));
        assert!(step.expect("a step back").is_back());
        assert_eq!(
            clock.stepped_at(),
            Some(base + Duration::from_millis(2_050))
        );
        assert_eq!(clock.at(base + Duration::from_millis(2_025)), ms(1_002_000));
    }

    #[test]
    fn a_slow_answer_or_a_clock_that_is_slewed_is_no_step() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 1, 1_000_000));
        assert_eq!(clock.observe(reading(base, 100, 4_100, 1_000_150)), None);
        assert_eq!(clock.observe(reading(base, 4_200, 4_201, 1_004_200)), None);
        for second in 1..60_i64 {
            let asked_ms = 4_200 + u64::try_from(second).expect("positive") * 1_000;
            let slewed = reading(base, asked_ms, asked_ms + 1, 1_004_200 + second * 1_083);
            assert_eq!(clock.observe(slewed), None, "second {second}");
        }
        assert_eq!(clock.stepped_at(), None);
    }

    #[test]
    fn a_host_that_slept_is_noticed_until_the_next_reading() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 0, 1_000_000));
        assert!(!clock.was_suspended(moment(base, 1_000, 1_000)));
        assert!(clock.was_suspended(moment(base, 1_000, 9_000)));
        assert!(clock.was_suspended(moment(base, 1_000, 0)));
        clock.observe(ClockReading {
            asked: moment(base, 1_000, 9_000),
            answered: moment(base, 1_000, 9_000),
            ..reading(base, 1_000, 1_000, 1_009_000)
        });
        assert!(!clock.was_suspended(moment(base, 2_000, 10_000)));
    }

    /// The answer was on its way meanwhile: it is older than both clocks of the host can tell since.
    #[test]
    fn a_host_that_slept_between_the_asking_and_the_answer_is_noticed() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 0, 1_000_000));
        clock.observe(ClockReading {
            answered: moment(base, 1_001, 9_001),
            ..reading(base, 1_000, 1_001, 1_001_000)
        });
        assert!(clock.was_suspended(moment(base, 1_002, 9_002)));
    }

    #[test]
    fn both_directions_agree() {
        let base = Instant::now() + Duration::from_secs(60);
        let clock = DbClock::new(reading(base, 0, 2, 1_000_000));
        for ms in [-500, 0, 500] {
            let at = DbTime::from_micros((1_000_000 + ms) * 1_000);
            assert_eq!(clock.at(clock.instant_of(at)), at);
        }
    }
}
