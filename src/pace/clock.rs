//! A process's estimate of the database's clock, the only clock that processes compare.

use std::time::{Duration, Instant, SystemTime};

use super::DbTime;

/// A present time on both of this host's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Stands still while the host sleeps.
    pub(crate) instant: Instant,
    /// Goes on while the host sleeps, and can be set.
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

#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockReading {
    /// Just before this process sent the statement.
    pub(crate) asked: Moment,
    /// Just after the response came.
    pub(crate) answered: Instant,
    /// The database's time in between.
    pub(crate) shown: DbTime,
}

impl ClockReading {
    /// The largest error of an estimate from this reading: half of its round trip, and the drift since.
    fn error_at(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.answered);
        self.round_trip() / 2 + age.mul_f64(DRIFT)
    }

    fn round_trip(&self) -> Duration {
        self.answered.saturating_duration_since(self.asked.instant)
    }
}

/// The drift between two clocks, as a share of the time. A crystal drifts by some 50 millionths.
const DRIFT: f64 = 100e-6;

/// An estimate from the reading whose error can be least, as if the database had read its clock halfway through the round
/// trip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DbClock {
    best: ClockReading,
    newest: ClockReading,
    /// The time at which this process noticed the last step. Slots of claims that began earlier are void.
    pub(crate) stepped_at: Option<Instant>,
}

/// An administrator or NTP set the database's clock, or another server with another clock took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockStep {
    /// The time that the estimate expected at this reading.
    pub(crate) before: DbTime,
    pub(crate) after: DbTime,
}

/// The process ignores a smaller step, because it is within the tolerance of the pace: see [`TOLERANCE`](super::TOLERANCE).
const LEAST_STEP: Duration = Duration::from_millis(10);
/// How fast a clock may be slewed without a step, as a share of the time: chrony's default maximum is a twelfth. Without
/// this allowance, a worker would find a step in each reading while the clock is slewed, and never send.
const SLEW: f64 = 0.1;
/// The longest time between two readings for which the process assumes [`SLEW`].
const MAX_SLEWING: Duration = Duration::from_secs(1);
/// The rate of slewing that the process assumes for any longer time: NTP slews by up to 500 ppm.
const LASTING_SLEW: f64 = 1e-3;
/// The difference between this host's two clocks from which on the process assumes that the host has slept, or that the
/// virtual machine was paused.
const MAX_SUSPENSION: Duration = Duration::from_millis(50);

impl DbClock {
    pub(crate) fn new(reading: ClockReading) -> Self {
        Self {
            best: reading,
            newest: reading,
            stepped_at: None,
        }
    }

    pub(crate) fn observe(&mut self, reading: ClockReading) -> Option<ClockStep> {
        let now = reading.answered;
        let age = now.saturating_duration_since(self.newest.answered);
        self.newest = reading;
        // If a reading contradicts the estimate, a clock was set, or this host has slept.
        let slack = self.best.round_trip() + Duration::from_millis(2);
        let (earliest, latest) = (self.at(reading.asked.instant), self.at(now));
        let back = earliest.since(reading.shown + slack);
        let ahead = reading.shown.since(latest + slack);
        let off = back.max(ahead);
        let explained = age.min(MAX_SLEWING).mul_f64(SLEW) + age.mul_f64(LASTING_SLEW);
        if off > Duration::ZERO || reading.error_at(now) <= self.best.error_at(now) {
            self.best = reading;
        }
        if off <= LEAST_STEP + explained {
            return None;
        }
        self.stepped_at = Some(now);
        Some(ClockStep {
            before: latest,
            after: reading.shown,
        })
    }

    /// True if this host has slept, or may have slept, since this process asked for the newest reading. The estimate is then
    /// behind the database's clock until the next reading, because the response may be as old as the sleep was long.
    pub(crate) fn was_suspended(&self, now: Moment) -> bool {
        let asked = self.newest.asked;
        let measured = now.instant.saturating_duration_since(asked.instant);
        // An error means that the host's clock was set back, and could hide any sleep.
        now.wall
            .duration_since(asked.wall)
            .map_or(true, |passed| passed.abs_diff(measured) > MAX_SUSPENSION)
    }

    fn reference(&self) -> Instant {
        self.best.asked.instant + self.best.round_trip() / 2
    }

    pub(crate) fn at(&self, instant: Instant) -> DbTime {
        let reference = self.reference();
        match instant.checked_duration_since(reference) {
            Some(after) => self.best.shown + after,
            None => self.best.shown - reference.saturating_duration_since(instant),
        }
    }

    /// The moment at which the database's clock shows a time. A time that no `Instant` can hold is the moment of the best
    /// reading, because a slot centuries ahead is missed in any case.
    pub(crate) fn instant_of(&self, at: DbTime) -> Instant {
        let reference = self.reference();
        let instant = if at >= self.best.shown {
            reference.checked_add(at.since(self.best.shown))
        } else {
            reference.checked_sub(self.best.shown.since(at))
        };
        instant.unwrap_or(reference)
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
            answered: base + Duration::from_millis(answered_ms),
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
        assert!(step.after > step.before);
        assert_eq!(clock.at(base + Duration::from_millis(1_020)), ms(5_000_000));
        let step = clock.observe(reading(base, 2_000, 2_050, 1_002_000));
        let step = step.expect("a step back");
        assert!(step.after < step.before);
        assert_eq!(clock.stepped_at, Some(base + Duration::from_millis(2_050)));
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
        assert_eq!(clock.stepped_at, None);
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
            ..reading(base, 1_000, 1_000, 1_009_000)
        });
        assert!(!clock.was_suspended(moment(base, 2_000, 10_000)));
    }

    #[test]
    fn a_host_that_slept_between_request_and_response_is_noticed() {
        let base = Instant::now();
        let mut clock = DbClock::new(reading(base, 0, 0, 1_000_000));
        clock.observe(reading(base, 1_000, 1_001, 1_001_000));
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
