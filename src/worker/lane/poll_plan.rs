//! When the poller polls a lane, where a claim begins to read, and when the idle loop claims next. In memory only: after a
//! crash, a new process claims first.
//!
//! **Position.** While a session holds an old snapshot, such as a report or a backup, an index keeps an entry for every message
//! that was sent since. A claim from the beginning of the index would read all of them: after half a million messages, it
//! would take a thousand times as long. So a claim begins where the last claim of this process ended, or at a message that
//! this process has put back since. A transaction that commits late, or a due time in the past, puts a message before that
//! position. The poller finds such messages by a *full scan*: a poll from the beginning of both indexes, which locks nothing.
//!
//! **Busy or idle.** A busy loop claims again by itself, so the poller only makes full scans. A loop is idle when it has taken
//! all due messages, or when the lane is held. It claims again after a notification, at the due time of the next message, at
//! the end of the hold's pause, or after a poll that found a due message.

use std::time::{Duration, Instant};

use crate::outbox::{BEGINNING, Batch, Hold, NextDue, ScanPosition, Wakeup};
use crate::pace::DbTime;

/// A first attempt is due since its transaction began, and visible since its commit. A full scan finds messages of
/// transactions that take longer than this. Retries were committed long before they are due.
const COMMIT_SLACK: Duration = Duration::from_secs(2);
/// While claims take messages, the pause before a full scan is this many times the duration of the last one.
const PAUSE_FACTOR: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// Also the pause while claims take no messages.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest poll interval of a lane that inserts do not notify.
const POLL_WITHOUT_LISTENER: Duration = Duration::from_millis(200);
const SHORTEST_POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct PollPlan {
    pub(crate) position: ScanPosition,
    last_full_scan: Instant,
    full_scan_pause: Duration,
    /// True if a claim has moved the position since the last full scan.
    has_moved: bool,
    pub(crate) is_idle: bool,
    next_due_at: Option<DbTime>,
    held_until: Option<DbTime>,
    /// When a message was last found without a notification, or when inserts began to notify.
    quiet_since: Instant,
    wakeup: Wakeup,
    next_poll: Instant,
}

impl Default for PollPlan {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            position: BEGINNING,
            last_full_scan: now,
            full_scan_pause: SHORTEST_PAUSE,
            has_moved: false,
            is_idle: false,
            next_due_at: None,
            held_until: None,
            quiet_since: now,
            wakeup: Wakeup::Off,
            next_poll: now,
        }
    }
}

impl PollPlan {
    pub(crate) fn next_full_scan(&self) -> Instant {
        let pause = if self.has_moved {
            self.full_scan_pause
        } else {
            LONGEST_PAUSE
        };
        self.last_full_scan + pause
    }

    /// The poller polls a busy lane only for its next full scan, and an idle lane also by its plan.
    pub(crate) fn next_poll(&self) -> Instant {
        let next_full_scan = self.next_full_scan();
        if self.is_idle {
            self.next_poll.min(next_full_scan)
        } else {
            next_full_scan
        }
    }

    /// When the loop must claim, if it is known. Messages of a held lane wait for the end of its pause.
    pub(crate) fn claim_at(&self) -> Option<DbTime> {
        self.held_until.or(self.next_due_at)
    }

    pub(crate) fn idle(&mut self, batch: &Batch, now: Instant) {
        let is_found_by_polls = batch.wakeup == Wakeup::Off && !batch.messages.is_empty();
        if is_found_by_polls || batch.wakeup == Wakeup::New {
            self.quiet_since = now;
        }
        self.is_idle = true;
        self.wakeup = batch.wakeup;
        self.next_due_at = batch.next_due_at;
        self.held_until = held_until(batch.hold, batch.at);
    }

    /// Plans the next poll and returns its time: a quarter of the quiet time later, within bounds. An insert does not notify
    /// if its trigger ran before the claim asked for wakeups. After recent messages, polls find such an insert soon. In a
    /// quiet time, polls cost little.
    pub(crate) fn plan(
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

    /// Plans a poll and a full scan soon, because due messages may be anywhere: a statement failed, or the lane changed.
    pub(crate) fn poll_soon(&mut self) {
        self.next_poll = Instant::now();
        self.scan_soon();
    }

    pub(crate) fn scan_soon(&mut self) {
        self.has_moved = true;
        self.full_scan_pause = SHORTEST_PAUSE;
    }

    /// A poll failed. The next poll and full scan come soon, but not at once.
    pub(crate) fn poll_failed(&mut self, now: Instant) {
        self.next_poll = now + SHORTEST_PAUSE;
        self.last_full_scan = now;
        self.scan_soon();
    }

    /// Applies the result of a poll. True if the loop must claim at once.
    pub(crate) fn polled(&mut self, next_due: &NextDue) -> bool {
        self.held_until = held_until(next_due.hold, next_due.at);
        self.next_due_at = next_due.due_at();
        self.held_until.is_none() && self.next_due_at.is_some_and(|due_at| due_at <= next_due.at)
    }

    pub(crate) fn scanned(&mut self, began: Instant, now: Instant, next_due: &NextDue) {
        let took = now.saturating_duration_since(began);
        self.last_full_scan = now;
        self.full_scan_pause = (took * PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.has_moved = false;
        for (found, is_retry) in [(next_due.first, false), (next_due.retry, true)] {
            if let Some((due_at, id)) = found {
                self.include(due_at, id, is_retry);
            }
        }
    }

    pub(crate) fn put_back(&mut self, due_at: DbTime, id: i64, is_retry: bool) {
        self.include(due_at, id, is_retry);
        self.next_due_at = self.next_due_at.into_iter().chain([due_at]).min();
    }

    fn include(&mut self, due_at: DbTime, id: i64, is_retry: bool) {
        let position = &mut self.position[usize::from(is_retry)];
        *position = (*position).min((due_at, id.saturating_sub(1)));
    }

    /// Moves the position after a claim that began at `from`.
    pub(crate) fn claimed(&mut self, from: ScanPosition, batch: &Batch) {
        if batch.slots == 0 {
            // A claim without slots reads no message.
            return;
        }
        // A claim that had slots left took all due messages.
        let all = (!batch.is_full()).then_some((batch.at, 0));
        let of_first = (false, batch.passed, (batch.at - COMMIT_SLACK, 0));
        let of_retries = (true, batch.retry_passed, (DbTime::INFINITY, 0));
        for (is_retry, passed, latest) in [of_first, of_retries] {
            let of_kind = batch
                .messages
                .iter()
                .filter(|claimed| claimed.is_retry == is_retry);
            let last = of_kind.map(|claimed| (claimed.original_due_at, claimed.id));
            let begun = from[usize::from(is_retry)];
            let Some(reached) = passed.or(all).or(last.max()) else {
                continue;
            };
            let reached = reached.min(latest).max(begun);
            self.has_moved |= reached != begun;
            // The claim may have missed messages that this process put back meanwhile, so an earlier position stays.
            let position = &mut self.position[usize::from(is_retry)];
            if *position >= begun {
                *position = reached;
            }
        }
    }
}

/// The end of a hold's pause. A hold whose pause is over needs no wait: the next due message is its probe.
fn held_until(hold: Option<Hold>, now: DbTime) -> Option<DbTime> {
    hold.map(|hold| hold.until).filter(|until| *until > now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::HoldKind;

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const NOTHING: NextDue = NextDue {
        at: AT,
        first: None,
        retry: None,
        hold: None,
    };

    fn batch(slots: usize, expired: usize) -> Batch {
        let mut batch = Batch::without_messages(AT, slots);
        batch.ended.expired = expired;
        batch.next_due_at = Some(AT + SECOND * 9);
        batch
    }

    fn idle_batch(wakeup: Wakeup, hold: Option<Hold>) -> Batch {
        Batch {
            hold,
            wakeup,
            ..batch(1, 0)
        }
    }

    fn pause(plan: &mut PollPlan, now: Instant, is_listening: bool) -> Duration {
        plan.plan(now, is_listening, SECOND) - now
    }

    #[test]
    fn a_lane_that_inserts_notify_is_polled_less_and_less() {
        let begun = Instant::now();
        let mut plan = PollPlan::default();
        plan.idle(&idle_batch(Wakeup::New, None), begun);
        assert_eq!(pause(&mut plan, begun, true), SHORTEST_POLL);
        plan.idle(&idle_batch(Wakeup::On, None), begun + SECOND);
        assert_eq!(pause(&mut plan, begun + SECOND, true), SECOND / 4);
        assert_eq!(pause(&mut plan, begun + SECOND * 8, true), SECOND);
    }

    #[test]
    fn a_lane_that_inserts_do_not_notify_is_polled_often() {
        let begun = Instant::now();
        for (wakeup, is_listening) in [(Wakeup::On, false), (Wakeup::Off, true)] {
            let mut plan = PollPlan::default();
            plan.idle(&idle_batch(wakeup, None), begun);
            let later = begun + SECOND * 60;
            assert_eq!(pause(&mut plan, later, is_listening), POLL_WITHOUT_LISTENER);
        }
        let plan = PollPlan::default();
        assert_eq!(plan.next_poll(), plan.next_full_scan());
    }

    #[test]
    fn a_held_lane_claims_once_at_the_end_of_its_pause() {
        let hold = |until| Hold {
            kind: HoldKind::Unavailable,
            until,
        };
        let mut plan = PollPlan::default();
        plan.idle(
            &idle_batch(Wakeup::Off, Some(hold(AT + SECOND * 20))),
            Instant::now(),
        );
        assert_eq!(plan.claim_at(), Some(AT + SECOND * 20));
        plan.idle(&idle_batch(Wakeup::Off, Some(hold(AT))), Instant::now());
        assert_eq!(plan.claim_at(), Some(AT + SECOND * 9));
    }

    #[test]
    fn a_poll_that_finds_a_due_message_wakes_the_loop_unless_the_lane_is_held() {
        let mut next_due = NextDue {
            at: AT,
            first: Some((AT, 1)),
            retry: None,
            hold: None,
        };
        let mut plan = PollPlan::default();
        assert!(plan.polled(&next_due));
        next_due.hold = Some(Hold {
            kind: HoldKind::Paused,
            until: AT + SECOND,
        });
        assert!(!plan.polled(&next_due));
        next_due.hold = None;
        next_due.first = None;
        next_due.retry = Some((AT + SECOND, 1));
        assert!(!plan.polled(&next_due));
        assert_eq!(plan.claim_at(), Some(AT + SECOND));
    }

    /// After a claim that took all that was due.
    fn all_taken() -> PollPlan {
        let mut plan = PollPlan::default();
        plan.claimed(BEGINNING, &batch(5, 0));
        plan
    }

    #[test]
    fn after_a_claim_of_all_due_messages_the_position_leaves_time_for_late_commits() {
        let position = all_taken().position;
        assert_eq!(position[0], (AT - COMMIT_SLACK, 0));
        assert_eq!(position[1], (AT, 0));
    }

    #[test]
    fn a_claim_of_a_part_of_a_backlog_moves_the_position_no_further() {
        let mut plan = PollPlan::default();
        plan.claimed(BEGINNING, &batch(5, 5));
        assert_eq!(plan.position, BEGINNING);
        plan.claimed(BEGINNING, &batch(0, 0));
        assert_eq!(plan.position, BEGINNING);
    }

    #[test]
    fn a_message_put_back_moves_the_position_back_even_during_a_claim() {
        let mut plan = all_taken();
        let from = plan.position;
        plan.put_back(AT - SECOND * 12, 9, false);
        plan.put_back(AT - SECOND, 8, true);
        plan.put_back(AT + SECOND, 4, true);
        plan.claimed(from, &batch(5, 0));
        let back = plan.position;
        assert_eq!(back[0], (AT - SECOND * 12, 8));
        assert_eq!(back[1], (AT - SECOND, 7));
        plan.claimed(back, &batch(5, 0));
        assert_eq!(plan.position, from);
    }

    #[test]
    fn a_full_scan_brings_the_position_back_and_follows_within_five_seconds() {
        let mut plan = all_taken();
        let now = Instant::now();
        let found = NextDue {
            at: AT,
            first: Some((AT - SECOND * 30, 5)),
            retry: Some((AT + SECOND, 6)),
            hold: None,
        };
        let later = now + SECOND * 60;
        plan.scanned(now, later, &found);
        assert_eq!(plan.position[0], (AT - SECOND * 30, 4));
        assert_eq!(plan.position[1], (AT, 0));
        assert_eq!(plan.next_full_scan(), later + SECOND * 5);
    }

    #[test]
    fn full_scans_follow_each_other_sooner_while_claims_take_messages() {
        let mut plan = all_taken();
        let now = Instant::now();
        plan.scanned(now, now, &NOTHING);
        assert_eq!(plan.next_full_scan(), now + LONGEST_PAUSE);
        plan.claimed(BEGINNING, &batch(5, 0));
        assert_eq!(plan.next_full_scan(), now + SHORTEST_PAUSE);
    }

    #[test]
    fn a_full_scan_follows_soon_after_an_error() {
        let mut plan = all_taken();
        let now = Instant::now();
        plan.scanned(now, now + SECOND, &NOTHING);
        plan.scan_soon();
        assert_eq!(plan.next_full_scan(), now + SECOND + SHORTEST_PAUSE);
    }
}
