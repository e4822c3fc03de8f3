//! How a lane fares with the database, and what follows for messages whose lease is over. After an outage that has
//! outlasted leases, their workers still have the outcomes, and write them as soon as they notice that the database is
//! back. Whoever notices first would take their messages for lost, and call them again.

use std::time::{Duration, Instant};

use crate::pace::DbTime;

/// How long the others have to write what they know: more than a recorder needs to notice, be its last try one that
/// waits for a connection until its deadline.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// What a lane knows of the database's availability.
#[derive(Debug, Default)]
pub(in crate::worker) struct OutageGrace {
    last_answer: Option<DbTime>,
    grace: Option<Grace>,
}

#[derive(Debug)]
struct Grace {
    /// A lease that has ended before this did so while its worker could record.
    lost_before: DbTime,
    /// When it is over; none while the database is away.
    until: Option<Instant>,
}

impl OutageGrace {
    pub(in crate::worker) fn failed(&mut self) {
        let last_answer = self.last_answer.unwrap_or(DbTime::from_micros(0));
        let lost_before = match &self.grace {
            None => last_answer,
            // Not for ever, where it fails over and over.
            Some(grace) => grace.lost_before.max(last_answer - GRACE_PERIOD),
        };
        self.grace = Some(Grace {
            lost_before,
            until: None,
        });
    }

    /// The database has answered at `now`, when its clock showed `at`.
    pub(in crate::worker) fn answered(&mut self, at: DbTime, now: Instant) {
        self.last_answer = Some(at);
        if let Some(grace) = &mut self.grace
            && *grace.until.get_or_insert(now + GRACE_PERIOD) <= now
        {
            self.grace = None;
        }
    }

    /// Before when a lease must have ended for its message to count as lost; none if any will do.
    pub(in crate::worker) fn lost_before(&self) -> Option<DbTime> {
        self.grace.as_ref().map(|grace| grace.lost_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_an_outage_the_others_have_time_to_write_what_they_know() {
        let begun = Instant::now();
        let mut outage_grace = OutageGrace::default();
        outage_grace.answered(AT, begun);
        assert_eq!(outage_grace.lost_before(), None);
        outage_grace.failed();
        outage_grace.failed();
        assert_eq!(outage_grace.lost_before(), Some(AT));
        let back = begun + SECOND * 60;
        outage_grace.answered(AT + SECOND * 60, back);
        assert_eq!(outage_grace.lost_before(), Some(AT));
        outage_grace.answered(AT + SECOND * 62, back + SECOND * 2);
        assert_eq!(outage_grace.lost_before(), Some(AT));
        outage_grace.answered(AT + SECOND * 65, back + GRACE_PERIOD);
        assert_eq!(outage_grace.lost_before(), None);
    }

    #[test]
    fn a_database_that_fails_over_and_over_keeps_no_message_from_being_lost() {
        let begun = Instant::now();
        let mut outage_grace = OutageGrace::default();
        for turn in 0..60 {
            outage_grace.answered(AT + SECOND * turn, begun + SECOND * turn);
            outage_grace.failed();
        }
        assert_eq!(
            outage_grace.lost_before(),
            Some(AT + SECOND * 59 - GRACE_PERIOD)
        );
    }
}
