//! What happens to a message next.

use serde::Serialize;

use super::MessageRow;
use crate::pace::DbTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum NextStep {
    Nothing,
    /// Its time has not come.
    Waits {
        until: DbTime,
    },
    /// It is due: the next claim of its app that has a slot for it takes it.
    Due,
    /// A worker has it, and calls it or waits for its slot.
    Sending {
        /// When others take it, if that worker dies.
        lease_ends_at: DbTime,
    },
    /// A trigger or a constraint of the application refuses to change it: claims pass over it until then.
    Refused {
        until: DbTime,
    },
    /// A worker had it and did not record what became of it: the next claim of its app finds it.
    Lost {
        lease_ended_at: DbTime,
    },
}

impl NextStep {
    pub(super) fn of(row: &MessageRow) -> Self {
        let is_due = row.due_at <= row.at;
        let is_final = row.finished_at.is_some();
        match (
            Self::after(is_final, row.is_claimed, is_due, row.due_at),
            row.refused_until,
        ) {
            // A lost message, too, waits until the database lets a claim change it.
            (Self::Due | Self::Lost { .. }, Some(until)) => Self::Refused { until },
            (step, _) => step,
        }
    }

    fn after(is_final: bool, is_claimed: bool, is_due: bool, due_at: DbTime) -> Self {
        match (is_final, is_claimed, is_due) {
            (true, _, _) => Self::Nothing,
            (false, true, false) => Self::Sending {
                lease_ends_at: due_at,
            },
            (false, true, true) => Self::Lost {
                lease_ended_at: due_at,
            },
            (false, false, false) => Self::Waits { until: due_at },
            (false, false, true) => Self::Due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_from_who_has_the_message_and_until_when() {
        let due_at = DbTime::from_micros(5_000_000);
        let waits = NextStep::Waits { until: due_at };
        let sending = NextStep::Sending {
            lease_ends_at: due_at,
        };
        let lost = NextStep::Lost {
            lease_ended_at: due_at,
        };
        for (is_final, is_claimed, is_due, next) in [
            (true, true, false, NextStep::Nothing),
            (false, false, false, waits),
            (false, false, true, NextStep::Due),
            (false, true, false, sending),
            (false, true, true, lost),
        ] {
            let found = NextStep::after(is_final, is_claimed, is_due, due_at);
            assert_eq!(found, next, "{is_final} {is_claimed} {is_due}");
        }
    }
}
