//! The outage grace: for 5 s after a database outage, a lane counts no message as lost whose lease ended during the outage.
//! An outage may outlast leases, and the workers of those messages still have the outcomes. Without the grace, the first
//! worker that reaches the database again would send the messages a second time.

use std::time::{Duration, Instant};

use crate::pace::DbTime;

/// Covers a statement of 4 s that began just before the end of the outage, and the recorder's pause of up to 1 s. A recorder
/// whose timeout has doubled may come later, and its messages may go out twice.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct OutageGrace {
    last_answer: DbTime,
    /// A message counts as lost only if its lease ended before this time, when its worker could still record. None: the end of
    /// the lease is enough.
    pub(crate) lost_before: Option<DbTime>,
    /// The end of the grace; none during the outage.
    until: Option<Instant>,
}

impl OutageGrace {
    pub(crate) fn failed(&mut self) {
        // With a fixed time, a database that fails again and again would keep messages of dead workers claimed for ever.
        let lost_before = self.lost_before.map_or(self.last_answer, |lost_before| {
            lost_before.max(self.last_answer - GRACE_PERIOD)
        });
        self.lost_before = Some(lost_before);
        self.until = None;
    }

    /// The database answered at `now`, when its clock showed `at`.
    pub(crate) fn answered(&mut self, at: DbTime, now: Instant) {
        self.last_answer = at;
        if *self.until.get_or_insert(now + GRACE_PERIOD) <= now {
            self.lost_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_an_outage_other_workers_have_time_to_record() {
        let begun = Instant::now();
        let mut outage_grace = OutageGrace::default();
        outage_grace.answered(AT, begun);
        assert_eq!(outage_grace.lost_before, None);
        outage_grace.failed();
        outage_grace.failed();
        assert_eq!(outage_grace.lost_before, Some(AT));
        let back = begun + SECOND * 60;
        outage_grace.answered(AT + SECOND * 60, back);
        assert_eq!(outage_grace.lost_before, Some(AT));
        outage_grace.answered(AT + SECOND * 62, back + SECOND * 2);
        assert_eq!(outage_grace.lost_before, Some(AT));
        outage_grace.answered(AT + SECOND * 65, back + GRACE_PERIOD);
        assert_eq!(outage_grace.lost_before, None);
    }

    #[test]
    fn messages_count_as_lost_although_the_database_fails_again_and_again() {
        let begun = Instant::now();
        let mut outage_grace = OutageGrace::default();
        for turn in 0..60 {
            outage_grace.answered(AT + SECOND * turn, begun + SECOND * turn);
            outage_grace.failed();
        }
        assert_eq!(
            outage_grace.lost_before,
            Some(AT + SECOND * 59 - GRACE_PERIOD)
        );
    }
}
