//! When the idle loop of a lane claims next, and when the poller polls it.
//!
//! - **busy**: the loop claims again by itself. The poller only makes full scans.
//! - **idle**: the worker has taken all due messages, or the lane is held. The loop claims again after a notification, at
//!   the due time of the next message, at the end of the hold's pause, or after a poll that found a due message.
//!
//! The schedule is in memory only. After a crash, a new process claims first.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, Hold, NextDue, Wakeup};
use crate::pace::DbTime;

/// The longest poll interval of a lane that inserts do not notify.
const POLL_WITHOUT_LISTENER: Duration = Duration::from_millis(200);
const SHORTEST_POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Schedule {
    is_idle: bool,
    next_due_at: Option<DbTime>,
    hold: Option<Hold>,
    /// When a message was last found without a notification, or when inserts began to notify.
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
    /// The loop is idle after this claim.
    pub(crate) fn idle(&mut self, batch: &Batch, now: Instant) {
        let is_found_by_polls = batch.wakeup == Wakeup::Off && !batch.messages.is_empty();
        if is_found_by_polls || batch.wakeup == Wakeup::New {
            self.quiet_since = now;
        }
        self.is_idle = true;
        self.wakeup = batch.wakeup;
        self.next_due_at = batch.next_due_at;
        self.set_hold(batch.hold, batch.at);
    }

    /// The loop is about to claim.
    pub(crate) fn busy(&mut self) {
        self.is_idle = false;
    }

    /// When the loop must claim, if it is known. Messages of a held lane wait for the end of its pause.
    pub(crate) fn claim_at(&self) -> Option<DbTime> {
        self.hold.map_or(self.next_due_at, |hold| Some(hold.until))
    }

    pub(crate) fn add_due(&mut self, due_at: DbTime) {
        self.next_due_at = self.next_due_at.into_iter().chain([due_at]).min();
    }

    /// Applies the result of a poll. True if the loop must claim at once.
    pub(crate) fn polled(&mut self, next_due: &NextDue) -> bool {
        self.set_hold(next_due.hold, next_due.at);
        self.next_due_at = next_due.due_at();
        self.hold.is_none() && self.next_due_at.is_some_and(|due_at| due_at <= next_due.at)
    }

    /// A hold whose pause is over needs no wait: the next due message is its probe.
    fn set_hold(&mut self, hold: Option<Hold>, now: DbTime) {
        self.hold = hold.filter(|hold| hold.until > now);
    }

    pub(crate) fn poll_soon(&mut self, now: Instant) {
        self.next_poll = now;
    }

    /// When the poller polls the lane next; none while the loop is busy.
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.is_idle.then_some(self.next_poll)
    }

    /// Plans the next poll and returns its time: a quarter of the quiet time later, within bounds. An insert does not notify
    /// if its trigger ran before the claim asked for wakeups. After recent messages, polls find such an insert soon. In a
    /// quiet time, polls cost little.
    pub(crate) fn plan_poll(
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
    fn a_lane_that_inserts_notify_is_polled_less_and_less() {
        let begun = Instant::now();
        let mut schedule = Schedule::default();
        schedule.idle(&batch(Wakeup::New, None), begun);
        assert_eq!(pause(&mut schedule, begun, true), SHORTEST_POLL);
        schedule.idle(&batch(Wakeup::On, None), begun + SECOND);
        assert_eq!(pause(&mut schedule, begun + SECOND, true), SECOND / 4);
        assert_eq!(pause(&mut schedule, begun + SECOND * 8, true), SECOND);
    }

    #[test]
    fn a_lane_that_inserts_do_not_notify_is_polled_often() {
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
    fn a_held_lane_claims_once_at_the_end_of_its_pause() {
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
    fn a_poll_that_finds_a_due_message_wakes_the_loop_unless_the_lane_is_held() {
        let mut next_due = NextDue {
            at: AT,
            first: Some((AT, 1)),
            retry: None,
            hold: None,
        };
        let mut schedule = Schedule::default();
        assert!(schedule.polled(&next_due));
        next_due.hold = Some(Hold {
            kind: HoldKind::Paused,
            until: AT + SECOND,
        });
        assert!(!schedule.polled(&next_due));
        next_due.hold = None;
        next_due.first = None;
        next_due.retry = Some((AT + SECOND, 1));
        assert!(!schedule.polled(&next_due));
        assert_eq!(schedule.claim_at(), Some(AT + SECOND));
    }
}
