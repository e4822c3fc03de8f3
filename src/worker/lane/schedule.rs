//! The schedule of a lane: the next due time while the lane is idle, and the next poll.
//!
//! - **busy**: the loop claims again by itself. The poller makes full looks alone.
//! - **idle**: all that is due is taken, or the lane is held. A notification, the due time of the next message, the end of
//!   the hold's pause, or a look of the poller that finds something wakes the loop.
//!
//! All of this is in memory: after a crash, a new process claims first.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, Hold, NextDue, Wakeup};
use crate::pace::DbTime;

/// The longest poll interval of a lane that inserts do not notify.
const POLL_WITHOUT_LISTENER: Duration = Duration::from_millis(200);
/// The shortest poll interval of any lane.
const SHORTEST_POLL: Duration = Duration::from_millis(5);
/// The schedule of one lane.
#[derive(Debug)]
pub(in crate::worker) struct Schedule {
    is_idle: bool,
    next_due_at: Option<DbTime>,
    hold: Option<Hold>,
    /// Since when nothing was found, or since when inserts notify.
    quiet_since: Instant,
    wakeup: Wakeup,
    next_poll: Instant,
}

impl Default for Schedule {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            is_idle: false,
            next_due_at: None,
            hold: None,
            quiet_since: now,
            wakeup: Wakeup::Off,
            next_poll: now,
        }
    }
}

impl Schedule {
    /// Takes in a claim, after which the loop is idle.
    pub(in crate::worker) fn idle(&mut self, batch: &Batch, now: Instant) {
        let is_found_by_polls = batch.wakeup == Wakeup::Off && !batch.messages.is_empty();
        if is_found_by_polls || batch.wakeup == Wakeup::New {
            self.quiet_since = now;
        }
        self.is_idle = true;
        self.wakeup = batch.wakeup;
        self.next_due_at = batch.next_due_at;
        // After the end of a pause a probe is made once there is a message for it.
        self.hold = batch.hold.filter(|hold| hold.until > batch.at);
    }

    /// The loop is about to claim.
    pub(in crate::worker) fn busy(&mut self) {
        self.is_idle = false;
    }

    /// When the loop has to claim, as far as that is known. Messages of a held lane wait for the end of its pause.
    pub(in crate::worker) fn claim_at(&self) -> Option<DbTime> {
        self.hold.map_or(self.next_due_at, |hold| Some(hold.until))
    }

    /// A message is due at this time.
    pub(in crate::worker) fn due_at(&mut self, due_at: DbTime) {
        self.next_due_at = self.next_due_at.into_iter().chain([due_at]).min();
    }

    /// Takes in a look; whether the loop has to claim at once.
    pub(in crate::worker) fn observe_next_due(&mut self, next_due: &NextDue) -> bool {
        self.hold = next_due.hold.filter(|hold| hold.until > next_due.at);
        self.next_due_at = next_due.due_at();
        self.hold.is_none() && self.next_due_at.is_some_and(|due_at| due_at <= next_due.at)
    }

    pub(in crate::worker) fn look_soon(&mut self, now: Instant) {
        self.next_poll = now;
    }

    /// When the poller looks next, if the lane is idle.
    pub(in crate::worker) fn next_poll(&self) -> Option<Instant> {
        self.is_idle.then_some(self.next_poll)
    }

    /// Sets when the poller looks next, and returns that: after a quarter of the time since a message was found so, or
    /// since inserts notify. An insert that does not notify (it had looked before, or can't) is found soon in a busy time,
    /// and polls cost little in a quiet one.
    pub(in crate::worker) fn plan_poll(
        &mut self,
        now: Instant,
        is_listening: bool,
        poll_interval: Duration,
    ) -> Instant {
        let longest = if is_listening && self.wakeup != Wakeup::Off {
            poll_interval
        } else {
            poll_interval.min(POLL_WITHOUT_LISTENER)
        };
        let quiet_for = now.saturating_duration_since(self.quiet_since);
        self.next_poll = now + (quiet_for / 4).max(SHORTEST_POLL).min(longest);
        self.next_poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Ended, HoldKind};

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn batch(wakeup: Wakeup, hold: Option<Hold>) -> Batch {
        Batch {
            messages: Vec::new(),
            slots: 1,
            ended: Ended::default(),
            refused: 0,
            at: AT,
            next_slot_at: AT,
            next_due_at: Some(AT + SECOND * 9),
            hold,
            throttled_per_s: None,
            wakeup,
            passed: None,
            retry_passed: None,
        }
    }

    fn pause(schedule: &mut Schedule, now: Instant, is_listening: bool) -> Duration {
        schedule.plan_poll(now, is_listening, SECOND) - now
    }

    #[test]
    fn a_notified_lane_polls_less_and_less_whatever_it_finds() {
        let begun = Instant::now();
        let mut schedule = Schedule::default();
        schedule.idle(&batch(Wakeup::New, None), begun);
        assert_eq!(pause(&mut schedule, begun, true), SHORTEST_POLL);
        schedule.idle(&batch(Wakeup::On, None), begun + SECOND);
        assert_eq!(pause(&mut schedule, begun + SECOND, true), SECOND / 4);
        assert_eq!(pause(&mut schedule, begun + SECOND * 8, true), SECOND);
    }

    #[test]
    fn a_lane_that_is_not_notified_polls_often() {
        let begun = Instant::now();
        for (wakeup, is_listening) in [(Wakeup::On, false), (Wakeup::Off, true)] {
            let mut schedule = Schedule::default();
            schedule.idle(&batch(wakeup, None), begun);
            let later = begun + SECOND * 60;
            assert_eq!(
                pause(&mut schedule, later, is_listening),
                POLL_WITHOUT_LISTENER
            );
        }
        let mut schedule = Schedule::default();
        schedule.busy();
        assert_eq!(schedule.next_poll(), None);
    }

    #[test]
    fn a_held_lane_claims_at_the_end_of_its_pause_and_not_over_and_over_after_that() {
        let hold = |until| Hold {
            kind: HoldKind::Unavailable,
            until,
        };
        let mut schedule = Schedule::default();
        schedule.idle(
            &batch(Wakeup::Off, Some(hold(AT + SECOND * 20))),
            Instant::now(),
        );
        assert_eq!(schedule.claim_at(), Some(AT + SECOND * 20));
        schedule.idle(&batch(Wakeup::Off, Some(hold(AT))), Instant::now());
        assert_eq!(schedule.claim_at(), Some(AT + SECOND * 9));
    }

    #[test]
    fn a_look_that_finds_a_due_message_wakes_the_loop_unless_the_lane_is_held() {
        let mut next_due = NextDue {
            at: AT,
            first: Some((AT, 1)),
            retry: None,
            hold: None,
        };
        let mut schedule = Schedule::default();
        assert!(schedule.observe_next_due(&next_due));
        next_due.hold = Some(Hold {
            kind: HoldKind::Paused,
            until: AT + SECOND,
        });
        assert!(!schedule.observe_next_due(&next_due));
        next_due.hold = None;
        next_due.first = None;
        next_due.retry = Some((AT + SECOND, 1));
        assert!(!schedule.observe_next_due(&next_due));
        assert_eq!(schedule.claim_at(), Some(AT + SECOND));
    }
}
