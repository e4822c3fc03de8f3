//! The scan position of a lane's claims: the `(due_at, id)` from which a claim reads each of the two indexes of due messages.
//!
//! While a session holds an old snapshot, such as a report or a backup, an index keeps an entry for every message that was
//! sent since. A claim from the beginning of the index would read all of them: after half a million messages, it would take
//! a thousand times as long. So a claim begins where the last claim of this process ended, or at a message that this
//! process has put back since.
//!
//! A transaction that commits late, or a due time in the past, puts a message before that position. The poller finds such
//! messages by a *full scan*: a poll from the beginning of both indexes, which locks nothing.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, NextDue, ScanPosition};
use crate::pace::DbTime;

/// A first attempt is due since its transaction began, and visible since its commit. A full scan finds messages of
/// transactions that take longer than this. Retries were committed long before they are due.
const COMMIT_SLACK: Duration = Duration::from_secs(2);
/// While claims take messages, the pause before a full scan is this many times the duration of the last one.
const PAUSE_FACTOR: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// Also the pause while claims take no messages.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct ScanState {
    position: ScanPosition,
    last_full_scan: Instant,
    pause: Duration,
    /// True if a claim has moved the position since the last full scan.
    has_moved: bool,
}

impl Default for ScanState {
    fn default() -> Self {
        Self {
            position: ScanPosition::BEGINNING,
            last_full_scan: Instant::now(),
            pause: SHORTEST_PAUSE,
            has_moved: false,
        }
    }
}

impl ScanState {
    pub(crate) fn position(&self) -> ScanPosition {
        self.position
    }

    pub(crate) fn next_full_scan(&self) -> Instant {
        let pause = if self.has_moved {
            self.pause
        } else {
            LONGEST_PAUSE
        };
        self.last_full_scan + pause
    }

    /// Plans a full scan soon, because due messages may be anywhere: a statement failed, or the lane changed.
    pub(crate) fn scan_soon(&mut self) {
        self.has_moved = true;
        self.pause = SHORTEST_PAUSE;
    }

    /// Starts from the beginning after a step of the database's clock, because the position is a time of another clock.
    pub(crate) fn restart(&mut self) {
        self.position = ScanPosition::BEGINNING;
        self.scan_soon();
    }

    /// A poll failed. The next full scan comes soon, but not at once.
    pub(crate) fn poll_failed(&mut self, now: Instant) {
        self.last_full_scan = now;
        self.scan_soon();
    }

    /// Moves the position after a claim that began at `from`.
    pub(crate) fn claimed(&mut self, from: ScanPosition, batch: &Batch) {
        if batch.slots == 0 {
            // A claim without slots reads no message.
            return;
        }
        let last = |is_retry: bool| {
            let messages = batch.messages.iter();
            let of_kind = messages.filter(|claimed| claimed.is_retry == is_retry);
            of_kind
                .map(|claimed| (claimed.original_due_at, claimed.id))
                .max()
        };
        // A claim that had slots left took all due messages.
        let all = (!batch.is_full()).then_some((batch.at, 0));
        let mut reached = from;
        if let Some(first) = batch.passed.or(all).or(last(false)) {
            reached.first = first.min((batch.at - COMMIT_SLACK, 0)).max(from.first);
        }
        if let Some(retry) = batch.retry_passed.or(all).or(last(true)) {
            reached.retry = retry.max(from.retry);
        }
        self.has_moved |= reached != from;
        // The claim may have missed messages that this process put back meanwhile, so an earlier position stays.
        if self.position.first >= from.first {
            self.position.first = reached.first;
        }
        if self.position.retry >= from.retry {
            self.position.retry = reached.retry;
        }
    }

    /// Moves the position back to a message that this process has put back, or that a full scan has found.
    pub(crate) fn include(&mut self, due_at: DbTime, id: i64, is_retry: bool) {
        let position = if is_retry {
            &mut self.position.retry
        } else {
            &mut self.position.first
        };
        *position = (*position).min((due_at, id.saturating_sub(1)));
    }

    pub(crate) fn scanned(&mut self, began: Instant, now: Instant, next_due: &NextDue) {
        let took = now.saturating_duration_since(began);
        self.last_full_scan = now;
        self.pause = (took * PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.has_moved = false;
        if let Some((due_at, id)) = next_due.first {
            self.include(due_at, id, false);
        }
        if let Some((due_at, id)) = next_due.retry {
            self.include(due_at, id, true);
        }
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
    fn after_a_claim_of_all_due_messages_the_position_leaves_time_for_late_commits() {
        let position = all_taken().position();
        assert_eq!(position.first, (AT - COMMIT_SLACK, 0));
        assert_eq!(position.retry, (AT, 0));
    }

    #[test]
    fn a_claim_of_a_part_of_a_backlog_moves_the_position_no_further() {
        let mut scan = ScanState::default();
        scan.claimed(ScanPosition::BEGINNING, &batch(5, 5));
        assert_eq!(scan.position(), ScanPosition::BEGINNING);
        scan.claimed(ScanPosition::BEGINNING, &batch(0, 0));
        assert_eq!(scan.position(), ScanPosition::BEGINNING);
    }

    #[test]
    fn a_message_put_back_moves_the_position_back_even_during_a_claim() {
        let mut scan = all_taken();
        let from = scan.position();
        scan.include(AT - SECOND * 12, 9, false);
        scan.include(AT - SECOND, 8, true);
        scan.include(AT + SECOND, 4, true);
        scan.claimed(from, &batch(5, 0));
        let back = scan.position();
        assert_eq!(back.first, (AT - SECOND * 12, 8));
        assert_eq!(back.retry, (AT - SECOND, 7));
        scan.claimed(back, &batch(5, 0));
        assert_eq!(scan.position(), from);
    }

    #[test]
    fn a_full_scan_brings_the_position_back_and_follows_within_five_seconds() {
        let mut scan = all_taken();
        let now = Instant::now();
        let found = NextDue {
            at: AT,
            first: Some((AT - SECOND * 30, 5)),
            retry: Some((AT + SECOND, 6)),
            hold: None,
        };
        let later = now + SECOND * 60;
        scan.scanned(now, later, &found);
        assert_eq!(scan.position().first, (AT - SECOND * 30, 4));
        assert_eq!(scan.position().retry, (AT, 0));
        assert_eq!(scan.next_full_scan(), later + SECOND * 5);
    }

    #[test]
    fn full_scans_follow_each_other_sooner_while_claims_take_messages() {
        let mut scan = all_taken();
        let now = Instant::now();
        scan.scanned(now, now, &NOTHING);
        assert_eq!(scan.next_full_scan(), now + LONGEST_PAUSE);
        scan.claimed(ScanPosition::BEGINNING, &batch(5, 0));
        assert_eq!(scan.next_full_scan(), now + SHORTEST_PAUSE);
    }

    #[test]
    fn a_full_scan_follows_soon_after_an_error() {
        let mut scan = all_taken();
        let now = Instant::now();
        scan.scanned(now, now + SECOND, &NOTHING);
        scan.scan_soon();
        assert_eq!(scan.next_full_scan(), now + SECOND + SHORTEST_PAUSE);
    }
}
