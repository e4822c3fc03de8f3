//! From where on a lane looks for rows that are due. While somebody holds an old snapshot, be it a report or a backup,
//! the index keeps an entry for every message that was sent since, and a claim that began at the index's beginning would
//! read them all: after half a million messages it would take a thousand times as long as it needs. So claims begin
//! where an earlier one ended. What may have come before that by then is found by sweeps, which begin at the beginning;
//! they follow each other as fast as they may without taking more than a small part of the time.

use std::time::{Duration, Instant};

use crate::outbox::{Batch, Peek, Start};

/// A row becomes visible with its transaction's commit, and is due since its beginning, normally. Who commits within
/// this time is not left to a sweep.
const SLACK: Duration = Duration::from_secs(2);
/// Of so many parts of the time, sweeps take one.
const SWEEPS_ONE_IN: u32 = 20;

/// What is known of a lane's rows.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    known: Start,
    /// None if it is time for one.
    next_sweep: Option<Instant>,
}

impl Watermark {
    /// From where on to look at this time.
    pub(super) fn start(&self, now: Instant) -> Start {
        if self.next_sweep.is_none_or(|next_sweep| next_sweep <= now) {
            Start::BEGINNING
        } else {
            self.known
        }
    }

    /// Takes in a claim that began so.
    pub(super) fn claimed(&mut self, start: Start, began: Instant, now: Instant, batch: &Batch) {
        self.swept(start, began, now);
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
            self.known.again = Some(visible);
        }
    }

    /// Takes in a look that began so. What it has found is claimed from the beginning on.
    pub(super) fn looked(&mut self, start: Start, began: Instant, now: Instant, peek: &Peek) {
        if peek.next_due_at.is_none_or(|due_at| due_at > peek.at) {
            self.swept(start, began, now);
        }
    }

    fn swept(&mut self, start: Start, began: Instant, now: Instant) {
        if start == Start::BEGINNING {
            let took = now.saturating_duration_since(began);
            self.next_sweep = Some(now + took * SWEEPS_ONE_IN);
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

    /// After a sweep that took a second.
    fn swept(batch: &Batch) -> (Watermark, Instant) {
        let begun = Instant::now();
        let mut watermark = Watermark::default();
        assert_eq!(watermark.start(begun), Start::BEGINNING);
        watermark.claimed(Start::BEGINNING, begun, begun + SECOND, batch);
        (watermark, begun + SECOND)
    }

    #[test]
    fn a_claim_begins_where_the_last_one_ended() {
        let last = (AT - SECOND * 60, 17);
        let (mut watermark, now) = swept(&batch(5, 5, Some(last)));
        let start = watermark.start(now);
        assert_eq!(start.fresh, Some(last));
        assert_eq!(start.again, Some(AT - SLACK));
        let next = (AT - SECOND * 59, 3);
        watermark.claimed(start, now, now + SECOND, &batch(5, 5, Some(next)));
        assert_eq!(watermark.start(now).fresh, Some(next));
    }

    #[test]
    fn what_may_not_be_committed_yet_is_looked_for_again() {
        let (watermark, now) = swept(&batch(5, 5, Some((AT, 17))));
        assert_eq!(watermark.start(now).fresh, Some((AT - SLACK, 0)));
        let (watermark, now) = swept(&batch(5, 0, None));
        assert_eq!(watermark.start(now).fresh, Some((AT - SLACK, 0)));
    }

    #[test]
    fn a_claim_without_slots_teaches_nothing() {
        let (watermark, now) = swept(&batch(0, 0, None));
        assert_eq!(watermark.start(now), Start::BEGINNING);
    }

    #[test]
    fn sweeps_take_a_small_part_of_the_time() {
        let (mut watermark, now) = swept(&batch(5, 0, None));
        assert_ne!(watermark.start(now + SECOND * 19), Start::BEGINNING);
        assert_eq!(watermark.start(now + SECOND * 20), Start::BEGINNING);
        // A look that finds something leaves the sweep to the claim that follows.
        let peek = |next_due_at| Peek {
            at: AT,
            next_due_at,
            hold: None,
        };
        let later = now + SECOND * 20;
        watermark.looked(Start::BEGINNING, later, later + SECOND, &peek(Some(AT)));
        assert_eq!(watermark.start(later + SECOND), Start::BEGINNING);
        watermark.looked(Start::BEGINNING, later, later + SECOND, &peek(None));
        assert_ne!(watermark.start(later + SECOND), Start::BEGINNING);
    }
}
