//! The next step of a message.

use serde::Serialize;

use super::MessageRow;
use crate::pace::DbTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum NextStep {
    Nothing,
    Waits {
        until: DbTime,
    },
    /// The next claim with a free slot takes the message.
    Due,
    /// A worker waits for the slot or for the response.
    Sending {
        lease_ends_at: DbTime,
    },
    /// Claims pass over the message, because a trigger or a constraint refuses to change it.
    Refused {
        until: DbTime,
    },
    /// A worker died with the message. The next claim of the app finds it.
    Lost {
        lease_ended_at: DbTime,
    },
}

impl NextStep {
    pub(super) fn of(row: &MessageRow) -> Self {
        let is_due = row.due_at <= row.at;
        let is_final = row.finished_at.is_some();
        let step = Self::after(is_final, row.is_claimed, is_due, row.due_at);
        match (step, row.refused_until) {
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
