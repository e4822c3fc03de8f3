//! From where on a lane looks for rows that are due. While somebody holds an old snapshot, be it a report or a backup,
//! the index keeps an entry for every message that was sent since, and a claim that began at the index's beginning
//! would read them all: after half a million messages it would take a thousand times as long as it needs. So claims
//! begin where an earlier one ended, or at what this process has put back since. What else may have come before that
//! by then is found by sweeps, which begin at the beginning; they follow each other as fast as they may without
//! taking more than a small part of the time. One that takes long is a look, which locks nothing: the claims of other
//! processes go on meanwhile.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, NextDue, ScanPosition};
use crate::pace::DbTime;

/// A row becomes visible with its transaction's commit, and is due since its beginning, normally. Who commits within
/// this time is not left to a sweep. Rows that are called again were committed long before they are due.
const SLACK: Duration = Duration::from_secs(2);
/// Of so many parts of the time, sweeps take one.
const FULL_SCAN_SHARE: u32 = 50;
/// A sweep that takes no longer is made by a claim, which keeps the lane locked for it.
const QUICK: Duration = Duration::from_millis(10);

/// What is known of a lane's rows.
#[derive(Debug, Default)]
pub(in crate::worker) struct ScanState {
    known: ScanPosition,
    /// The first rows that went back since the last claim began, which may not have seen them.
    returned: First,
    last_full_scan: Option<FullScan>,
}

/// The first rows of some: when one is due that was never claimed, with its id, and when one of the others is.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    fresh: Option<(DbTime, i64)>,
    again: Option<DbTime>,
}

#[derive(Debug, Clone, Copy)]
struct FullScan {
    took: Duration,
    ended: Instant,
}

impl FullScan {
    fn is_stale(self, now: Instant) -> bool {
        now >= self.ended + self.took * FULL_SCAN_SHARE
    }
}

impl ScanState {
    /// From where on a claim looks that begins at this time.
    pub(in crate::worker) fn claim_position(&mut self, now: Instant) -> ScanPosition {
        let returned = std::mem::take(&mut self.returned);
        self.begin_at(returned);
        match self.last_full_scan {
            Some(last) if last.took > QUICK || !last.is_stale(now) => self.known,
            _ => ScanPosition::BEGINNING,
        }
    }

    /// The same for a look.
    pub(in crate::worker) fn next_due_position(&self, now: Instant) -> ScanPosition {
        match self.last_full_scan {
            Some(last) if !last.is_stale(now) => self.known,
            _ => ScanPosition::BEGINNING,
        }
    }

    /// Whether it is time for a sweep, but not by a claim.
    pub(in crate::worker) fn needs_full_scan(&self, now: Instant) -> bool {
        self.last_full_scan
            .is_some_and(|last| last.took > QUICK && last.is_stale(now))
    }

    /// Takes in a claim that began so.
    pub(in crate::worker) fn claimed(
        &mut self,
        start: ScanPosition,
        began: Instant,
        now: Instant,
        batch: &Batch,
    ) {
        self.full_scan_done(start, began, now);
        if batch.slots == 0 {
            // Nothing was looked at.
            return;
        }
        let visible = batch.at - SLACK;
        match batch.last_fresh {
            Some(last) => self.known.fresh = Some(last.min((visible, 0))),
            // Without rows of the other kind, all slots were for these.
            None if batch.nothing_again && !batch.is_full() => {
                self.known.fresh = Some((visible, 0));
            }
            None => {}
        }
        if batch.nothing_again {
            self.known.again = Some(batch.at);
        }
    }

    /// Takes in a look that began so; none if it has failed. Claims begin at what it has found.
    pub(in crate::worker) fn next_due_read(
        &mut self,
        start: ScanPosition,
        began: Instant,
        now: Instant,
        next_due: Option<&NextDue>,
    ) {
        if start != ScanPosition::BEGINNING {
            return;
        }
        self.full_scan_done(start, began, now);
        if let Some(next_due) = next_due {
            self.begin_at(First {
                fresh: next_due.fresh,
                again: next_due.again_due_at,
            });
        }
    }

    /// Takes in that this process has put a row back: without a call, or to be called again.
    pub(in crate::worker) fn returned(&mut self, due_at: DbTime, id: i64, was_ever_called: bool) {
        let first = &mut self.returned;
        if was_ever_called {
            first.again = first.again.into_iter().chain([due_at]).min();
        } else {
            first.fresh = first.fresh.into_iter().chain([(due_at, id)]).min();
        }
    }

    /// Begins no later than at these rows.
    fn begin_at(&mut self, rows: First) {
        if let (Some(known), Some((due_at, id))) = (&mut self.known.fresh, rows.fresh) {
            *known = (*known).min((due_at, id - 1));
        }
        if let (Some(known), Some(due_at)) = (&mut self.known.again, rows.again) {
            *known = (*known).min(due_at - Duration::from_micros(1));
        }
    }

    fn full_scan_done(&mut self, start: ScanPosition, began: Instant, now: Instant) {
        if start == ScanPosition::BEGINNING {
            let took = now.saturating_duration_since(began);
            self.last_full_scan = Some(FullScan { took, ended: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Ended;
    use crate::pace::DbTime;

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn batch(slots: usize, taken: usize, last_fresh: Option<(DbTime, i64)>) -> Batch {
        Batch {
            messages: Vec::new(),
            slots,
            // They count like messages.
            ended: Ended {
                expired: taken,
                unknown: 0,
            },
            at: AT,
            next_slot_at: AT,
            next_due_at: None,
            hold: None,
            slowed_to_per_s: None,
            last_fresh,
            nothing_again: true,
            bell_switched_on: false,
        }
    }

    fn next_due(due_at: Option<DbTime>) -> NextDue {
        NextDue {
            at: AT,
            fresh: due_at.map(|due_at| (due_at, 5)),
            again_due_at: due_at,
            hold: None,
        }
    }

    /// After a sweep that took so long.
    fn full_scan_done(took: Duration, batch: &Batch) -> (ScanState, Instant) {
        let begun = Instant::now();
        let mut scan_state = ScanState::default();
        assert_eq!(scan_state.claim_position(begun), ScanPosition::BEGINNING);
        assert!(!scan_state.needs_full_scan(begun));
        scan_state.claimed(ScanPosition::BEGINNING, begun, begun + took, batch);
        (scan_state, begun + took)
    }

    #[test]
    fn a_claim_begins_where_the_last_one_ended() {
        let last = (AT - SECOND * 60, 17);
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 5, Some(last)));
        let start = scan_state.claim_position(now);
        assert_eq!(start.fresh, Some(last));
        assert_eq!(start.again, Some(AT));
        let next = (AT - SECOND * 59, 3);
        scan_state.claimed(start, now, now + SECOND, &batch(5, 5, Some(next)));
        assert_eq!(scan_state.claim_position(now).fresh, Some(next));
    }

    #[test]
    fn what_may_not_be_committed_yet_is_looked_for_again() {
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 5, Some((AT, 17))));
        let start = scan_state.claim_position(now);
        assert_eq!(start.fresh, Some((AT - SLACK, 0)));
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 0, None));
        let start = scan_state.claim_position(now);
        assert_eq!(start.fresh, Some((AT - SLACK, 0)));
    }

    #[test]
    fn a_claim_without_slots_teaches_nothing() {
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(0, 0, None));
        assert_eq!(scan_state.claim_position(now), ScanPosition::BEGINNING);
    }

    #[test]
    fn sweeps_take_a_small_part_of_the_time_and_long_ones_are_no_claims() {
        let (mut scan_state, now) = full_scan_done(QUICK, &batch(5, 0, None));
        assert_ne!(
            scan_state.claim_position(now + QUICK * 49),
            ScanPosition::BEGINNING
        );
        assert_eq!(
            scan_state.claim_position(now + QUICK * 50),
            ScanPosition::BEGINNING
        );
        assert!(!scan_state.needs_full_scan(now + QUICK * 50));

        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 0, None));
        assert!(!scan_state.needs_full_scan(now + SECOND * 49));
        assert_ne!(
            scan_state.next_due_position(now + SECOND * 49),
            ScanPosition::BEGINNING
        );
        assert!(scan_state.needs_full_scan(now + SECOND * 50));
        assert_eq!(
            scan_state.next_due_position(now + SECOND * 50),
            ScanPosition::BEGINNING
        );
        assert_ne!(
            scan_state.claim_position(now + SECOND * 50),
            ScanPosition::BEGINNING
        );
    }

    #[test]
    fn claims_go_back_to_what_a_look_has_found() {
        let last = (AT - SECOND * 10, 17);
        let look = |found: Option<&NextDue>| {
            let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 5, Some(last)));
            let later = now + SECOND * 50;
            scan_state.next_due_read(ScanPosition::BEGINNING, later, later + SECOND, found);
            assert!(!scan_state.needs_full_scan(later + SECOND));
            scan_state.claim_position(later + SECOND)
        };
        let unchanged = ScanPosition {
            fresh: Some(last),
            again: Some(AT),
        };
        assert_eq!(look(None), unchanged);
        assert_eq!(look(Some(&next_due(None))), unchanged);
        let later = Some(AT + SECOND);
        assert_eq!(look(Some(&next_due(later))), unchanged);

        let found = AT - SECOND * 30;
        let start = look(Some(&next_due(Some(found))));
        assert_eq!(start.fresh, Some((found, 4)));
        assert!(start.again < Some(found));
    }

    #[test]
    fn a_claim_goes_back_to_what_was_put_back_while_the_last_one_was_under_way() {
        let last = (AT - SECOND * 10, 17);
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 5, Some(last)));
        let start = scan_state.claim_position(now);
        scan_state.returned(AT - SECOND * 12, 9, false);
        scan_state.returned(AT - SECOND * 12, 7, false);
        scan_state.returned(AT - SECOND * 11, 3, false);
        scan_state.returned(AT - SECOND, 8, true);
        scan_state.returned(AT + SECOND, 4, true);
        scan_state.claimed(start, now, now, &batch(5, 5, Some(last)));
        let back = scan_state.claim_position(now);
        assert_eq!(back.fresh, Some((AT - SECOND * 12, 6)));
        assert!(back.again < Some(AT - SECOND) && back.again > Some(AT - SECOND * 2));
        scan_state.claimed(back, now, now, &batch(5, 5, Some(last)));
        assert_eq!(scan_state.claim_position(now), start);
    }

    #[test]
    fn a_look_at_a_part_is_no_sweep() {
        let (mut scan_state, now) = full_scan_done(SECOND, &batch(5, 0, None));
        let later = now + SECOND * 50;
        let start = scan_state.claim_position(later);
        scan_state.next_due_read(start, later, later + SECOND, Some(&next_due(None)));
        assert!(scan_state.needs_full_scan(later + SECOND));
    }
}
