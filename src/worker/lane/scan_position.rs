//! From where on a lane's claims look for messages. While somebody holds an old snapshot, be it a report or a backup, the
//! index keeps an entry for every message that was sent since, and a claim that began at the index's beginning would
//! read them all: after half a million messages it would take a thousand times as long as it needs. So a claim begins
//! where the last one ended, or at a message that this process has put back since.
//!
//! A message before that position (its transaction was committed late, or its due time lies in the past) is found by a
//! full look, which reads from the beginning and locks nothing.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, NextDue, ScanPosition};
use crate::pace::DbTime;

/// A message becomes visible with its transaction's commit, and is due since its beginning, normally. Messages whose
/// transaction takes longer are left to a full look. Retries were committed long before they are due.
const COMMIT_SLACK: Duration = Duration::from_secs(2);
/// While claims take messages, a full look follows the last one after fifty times as long as that took, within bounds.
const FULL_LOOK_SHARE: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, and the pause while claims take nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The scan position of a lane, and when it is time for a full look.
#[derive(Debug)]
pub(in crate::worker) struct ScanState {
    position: ScanPosition,
    last_full_look: Instant,
    pause: Duration,
    /// Whether a claim has moved the position since the last full look.
    has_moved: bool,
}

impl Default for ScanState {
    fn default() -> Self {
        Self {
            position: ScanPosition::BEGINNING,
            last_full_look: Instant::now(),
            pause: SHORTEST_PAUSE,
            has_moved: false,
        }
    }
}

impl ScanState {
    pub(in crate::worker) fn position(&self) -> ScanPosition {
        self.position
    }

    pub(in crate::worker) fn next_full_look(&self) -> Instant {
        let pause = if self.has_moved {
            self.pause
        } else {
            LONGEST_PAUSE
        };
        self.last_full_look + pause
    }

    /// A statement has failed, or the lane has changed: messages that are due may be anywhere.
    pub(in crate::worker) fn look_soon(&mut self) {
        self.has_moved = true;
        self.pause = SHORTEST_PAUSE;
    }

    /// Starts from the beginning after a step of the database's clock, because the position is a time of another clock.
    pub(in crate::worker) fn restart(&mut self) {
        self.position = ScanPosition::BEGINNING;
        self.look_soon();
    }

    /// Takes in a full look that found no answer: the next one comes soon, but not at once.
    pub(in crate::worker) fn look_failed(&mut self, now: Instant) {
        self.last_full_look = now;
        self.look_soon();
    }

    /// Takes in a claim that began at `from`.
    pub(in crate::worker) fn claimed(&mut self, from: ScanPosition, batch: &Batch) {
        if batch.slots == 0 {
            // The claim looked at nothing.
            return;
        }
        let last = |is_retry: bool| {
            let messages = batch.messages.iter();
            let of_kind = messages.filter(|claimed| claimed.is_retry == is_retry);
            of_kind
                .map(|claimed| (claimed.was_due_at, claimed.id))
                .max()
        };
        // A claim that had slots left over has taken all that was due.
        let all = (!batch.is_full()).then_some((batch.at, 0));
        let mut reached = from;
        if let Some(first) = batch.passed.or(all).or(last(false)) {
            reached.first = first.min((batch.at - COMMIT_SLACK, 0)).max(from.first);
        }
        if let Some(retry) = batch.retry_passed.or(all).or(last(true)) {
            reached.retry = retry.max(from.retry);
        }
        self.has_moved |= reached != from;
        // Messages that were put back while the claim was under way may not have been seen by it.
        let put_back = self.position;
        if put_back.first >= from.first {
            self.position.first = reached.first;
        }
        if put_back.retry >= from.retry {
            self.position.retry = reached.retry;
        }
    }

    /// Takes in that this process has put a message back: without an attempt, or for a retry.
    pub(in crate::worker) fn returned(&mut self, due_at: DbTime, id: i64, is_retry: bool) {
        self.begin_before(due_at, id, is_retry);
    }

    /// Takes in a full look that began at `began`.
    pub(in crate::worker) fn looked(&mut self, began: Instant, now: Instant, next_due: &NextDue) {
        let took = now.saturating_duration_since(began);
        self.last_full_look = now;
        self.pause = (took * FULL_LOOK_SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.has_moved = false;
        if let Some((due_at, id)) = next_due.first {
            self.begin_before(due_at, id, false);
        }
        if let Some((due_at, id)) = next_due.retry {
            self.begin_before(due_at, id, true);
        }
    }

    fn begin_before(&mut self, due_at: DbTime, id: i64, is_retry: bool) {
        let position = if is_retry {
            &mut self.position.retry
        } else {
            &mut self.position.first
        };
        *position = (*position).min((due_at, id.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Ended, Wakeup};

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const NOTHING: NextDue = NextDue {
        at: AT,
        first: None,
        retry: None,
        hold: None,
    };

    fn batch(slots: usize, ended: usize) -> Batch {
        Batch {
            messages: Vec::new(),
            slots,
            // They count like messages.
            ended: Ended {
                expired: ended,
                unknown: 0,
                failed: 0,
            },
            refused: 0,
            at: AT,
            next_slot_at: AT,
            next_due_at: None,
            hold: None,
            throttled_per_s: None,
            wakeup: Wakeup::Off,
            passed: None,
            retry_passed: None,
        }
    }

    /// After a claim that took all that was due.
    fn all_taken() -> ScanState {
        let mut scan = ScanState::default();
        scan.claimed(ScanPosition::BEGINNING, &batch(5, 0));
        scan
    }

    #[test]
    fn a_claim_that_took_all_leaves_out_what_lies_before_it_except_for_late_commits() {
        let position = all_taken().position();
        assert_eq!(position.first, (AT - COMMIT_SLACK, 0));
        assert_eq!(position.retry, (AT, 0));
    }

    #[test]
    fn a_claim_that_took_a_part_of_a_backlog_moves_no_further_than_that() {
        let mut scan = ScanState::default();
        scan.claimed(ScanPosition::BEGINNING, &batch(5, 5));
        assert_eq!(scan.position(), ScanPosition::BEGINNING);
        scan.claimed(ScanPosition::BEGINNING, &batch(0, 0));
        assert_eq!(scan.position(), ScanPosition::BEGINNING);
    }

    #[test]
    fn a_position_goes_back_to_a_message_that_was_put_back_also_while_a_claim_is_under_way() {
        let mut scan = all_taken();
        let from = scan.position();
        scan.returned(AT - SECOND * 12, 9, false);
        scan.returned(AT - SECOND, 8, true);
        scan.returned(AT + SECOND, 4, true);
        scan.claimed(from, &batch(5, 0));
        let back = scan.position();
        assert_eq!(back.first, (AT - SECOND * 12, 8));
        assert_eq!(back.retry, (AT - SECOND, 7));
        scan.claimed(back, &batch(5, 0));
        assert_eq!(scan.position(), from);
    }

    #[test]
    fn a_full_look_brings_the_position_back_and_follows_within_five_seconds() {
        let mut scan = all_taken();
        let now = Instant::now();
        let found = NextDue {
            at: AT,
            first: Some((AT - SECOND * 30, 5)),
            retry: Some((AT + SECOND, 6)),
            hold: None,
        };
        let later = now + SECOND * 60;
        scan.looked(now, later, &found);
        assert_eq!(scan.position().first, (AT - SECOND * 30, 4));
        assert_eq!(scan.position().retry, (AT, 0));
        assert_eq!(scan.next_full_look(), later + SECOND * 5);
    }

    #[test]
    fn full_looks_follow_each_other_sooner_while_claims_take_messages() {
        let mut scan = all_taken();
        let now = Instant::now();
        scan.looked(now, now, &NOTHING);
        assert_eq!(scan.next_full_look(), now + LONGEST_PAUSE);
        scan.claimed(ScanPosition::BEGINNING, &batch(5, 0));
        assert_eq!(scan.next_full_look(), now + SHORTEST_PAUSE);
    }

    #[test]
    fn a_full_look_follows_soon_after_an_error() {
        let mut scan = all_taken();
        let now = Instant::now();
        scan.looked(now, now + SECOND, &NOTHING);
        scan.look_soon();
        assert_eq!(scan.next_full_look(), now + SECOND + SHORTEST_PAUSE);
    }
}
