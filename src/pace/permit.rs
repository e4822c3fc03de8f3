//! Permission to make one call, as a value.

use std::time::{Duration, Instant};

use super::clock::Moment;
use super::{DbClock, DbTime, TOLERANCE};

/// Permission to start one call now. The client takes it by value, so a call without a slot of its own does not compile.
#[derive(Debug)]
#[must_use = "a slot that is not used is lost to the whole fleet"]
pub(crate) struct SendPermit {
    starts_at: DbTime,
}

/// The reason why a call may not start. The worker releases the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The slot was missed by more than the tolerance. The call would come together with a later one.
    SlotMissed,
    /// The host may have slept, so this process's estimate of the time may be old.
    HostSuspended,
    /// The rest of the lease is shorter than the request timeout. Another worker might claim the message during the call.
    LeaseTooShort,
    /// After the claim's request, the lane was held or throttled, or the database's clock was set, so its slots are void.
    Released,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedSlot {
    /// The earliest start of the call.
    pub(crate) at: DbTime,
    /// The time of the claim's request.
    pub(crate) asked_at: Instant,
    /// The earliest end of the lease: counted from `asked_at`.
    pub(crate) lease_ends: Instant,
}

impl ClaimedSlot {
    /// True if the lane released unsent messages after the claim's request.
    pub(crate) fn is_released(&self, released_at: Option<Instant>) -> bool {
        released_at.is_some_and(|released_at| self.asked_at <= released_at)
    }
}

impl SendPermit {
    pub(crate) fn starts_at(&self) -> DbTime {
        self.starts_at
    }

    /// The permit for a slot, if `now` is in time for the slot and early enough within the lease. Messages of claims up to
    /// `released_at` get none.
    pub(crate) fn take(
        slot: ClaimedSlot,
        request_timeout: Duration,
        clock: &DbClock,
        now: Moment,
        released_at: Option<Instant>,
    ) -> Result<Self, NoPermit> {
        let starts_at = clock.at(now.instant);
        if slot.is_released(released_at.max(clock.stepped_at)) {
            Err(NoPermit::Released)
        } else if clock.was_suspended(now) {
            Err(NoPermit::HostSuspended)
        } else if starts_at > slot.at + TOLERANCE {
            Err(NoPermit::SlotMissed)
        } else if now.instant + request_timeout >= slot.lease_ends {
            Err(NoPermit::LeaseTooShort)
        } else {
            Ok(Self { starts_at })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::ClockReading;
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(15);

    /// The time of the wall clock does not matter here.
    fn moment(instant: Instant) -> Moment {
        Moment {
            instant,
            wall: std::time::SystemTime::UNIX_EPOCH,
        }
    }

    fn claimed(at: DbTime, asked_at: Instant, lease_ends: Instant) -> ClaimedSlot {
        ClaimedSlot {
            at,
            asked_at,
            lease_ends,
        }
    }

    fn clock(now: Instant) -> DbClock {
        DbClock::new(ClockReading {
            asked: moment(now),
            answered: now,
            shown: DbTime::from_micros(1_000_000_000),
        })
    }

    #[test]
    fn a_slot_is_good_until_the_tolerance_ends_and_not_a_microsecond_longer() {
        let now = Instant::now();
        let slot = DbTime::from_micros(1_000_000_000);
        let take = |instant| {
            SendPermit::take(
                claimed(slot, now, now + LEASE),
                TIMEOUT,
                &clock(now),
                moment(instant),
                None,
            )
        };
        assert!(take(now).is_ok());
        assert!(take(now + TOLERANCE).is_ok());
        assert_eq!(
            take(now + TOLERANCE + Duration::from_micros(1)).err(),
            Some(NoPermit::SlotMissed)
        );
    }

    #[test]
    fn no_call_starts_when_it_could_outlast_the_lease() {
        let now = Instant::now();
        let slot = DbTime::from_micros(1_000_000_000);
        let take = |lease_ends| {
            let slot = claimed(slot, now, lease_ends);
            SendPermit::take(slot, TIMEOUT, &clock(now), moment(now), None)
        };
        assert!(take(now + TIMEOUT + Duration::from_millis(1)).is_ok());
        assert_eq!(take(now + TIMEOUT).err(), Some(NoPermit::LeaseTooShort));
    }

    #[test]
    fn a_slot_of_a_claim_before_a_step_of_the_clock_is_worth_nothing() {
        let now = Instant::now();
        let mut clock = clock(now);
        let later = now + Duration::from_secs(1);
        let shown = DbTime::from_micros(5_000_000_000);
        clock.observe(ClockReading {
            asked: moment(later),
            answered: later,
            shown,
        });
        let take = |asked_at| {
            let slot = claimed(shown, asked_at, later + LEASE);
            SendPermit::take(slot, TIMEOUT, &clock, moment(later), None)
        };
        assert_eq!(take(later).err(), Some(NoPermit::Released));
        assert!(take(later + Duration::from_micros(1)).is_ok());
    }

    #[test]
    fn messages_of_claims_before_a_hold_are_given_back_and_later_ones_are_not() {
        let now = Instant::now();
        let slot = DbTime::from_micros(1_000_000_000);
        let take = |released_at| {
            let slot = claimed(slot, now, now + LEASE);
            SendPermit::take(slot, TIMEOUT, &clock(now), moment(now), Some(released_at))
        };
        let just_before = now
            .checked_sub(Duration::from_micros(1))
            .expect("a time before");
        assert!(take(just_before).is_ok());
        assert_eq!(take(now).err(), Some(NoPermit::Released));
    }
}
