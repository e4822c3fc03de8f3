//! What happens to a message next.

use serde::Serialize;

use super::MessageRow;
use crate::pace::DbTime;

/// What happens to a message next.
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
    /// A worker had it and did not record what became of it: the next claim of its app finds it.
    Lost {
        lease_ended_at: DbTime,
    },
}

impl NextStep {
    pub(crate) fn of(row: &MessageRow) -> Self {
        match (row.finished_at.is_some(), row.is_claimed) {
            (true, _) => Self::Nothing,
            (false, true) if row.due_at > row.at => Self::Sending {
                lease_ends_at: row.due_at,
            },
            (false, true) => Self::Lost {
                lease_ended_at: row.due_at,
            },
            (false, false) if row.due_at > row.at => Self::Waits { until: row.due_at },
            (false, false) => Self::Due,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(is_claimed: bool, due_in_s: u64, is_final: bool) -> MessageRow {
        let at = DbTime::from_micros(0);
        MessageRow {
            at,
            id: 1,
            app: "default".into(),
            sender: "alice".into(),
            destination: Some("bob".into()),
            channel_name: None,
            status: "pending".into(),
            state: "queued".into(),
            attempts: 0,
            max_attempts: 10,
            wait_for_ack: false,
            at_most_once: false,
            created_at: at,
            due_at: at + Duration::from_secs(due_in_s),
            expires_at: None,
            is_claimed,
            claimed_by: None,
            sent_at: None,
            finished_at: is_final.then_some(at),
            http_status: None,
            request_id: None,
            error: None,
        }
    }

    #[test]
    fn the_next_step_follows_from_who_has_the_message_and_until_when() {
        let at = |seconds| DbTime::from_micros(0) + Duration::from_secs(seconds);
        for (row, next) in [
            (row(true, 5, true), NextStep::Nothing),
            (row(false, 5, false), NextStep::Waits { until: at(5) }),
            (row(false, 0, false), NextStep::Due),
            (
                row(true, 5, false),
                NextStep::Sending {
                    lease_ends_at: at(5),
                },
            ),
            (
                row(true, 0, false),
                NextStep::Lost {
                    lease_ended_at: at(0),
                },
            ),
        ] {
            assert_eq!(NextStep::of(&row), next, "{row:?}");
        }
    }
}
