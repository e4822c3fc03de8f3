//! The steps after the last fault. No message is lost, because these steps end every message from every state.

use super::action::{Action, At, Response};
use super::protocol::Protocol;
use super::state::{Claim, Stage, State, Worker};

/// More steps than any recovery takes. The longest one waits for a few leases and makes a few calls a message.
const MOST_STEPS: usize = 200;

impl Protocol {
    /// True if workers end every message from this state without an operator, if the database and the API work.
    pub(crate) fn recovers(&self, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..MOST_STEPS {
            if state.rows.iter().all(|row| row.end.is_some()) {
                return true;
            }
            let action = self.next_of_recovery(&state);
            self.take(&mut state, action);
        }
        false
    }

    fn next_of_recovery(&self, state: &State) -> Action {
        for (worker, present) in state.workers.iter().enumerate() {
            for place in 0..present.deliveries.len() {
                if let Some(action) = Self::next_of_delivery(state, At { worker, place }) {
                    return action;
                }
            }
        }
        let due = state.rows.iter().position(|row| self.can_claim(row));
        let has_room = |worker: &Worker| worker.deliveries.len() < self.room;
        match (state.workers.iter().position(has_room), due) {
            (Some(worker), Some(message)) => Action::Claim { worker, message },
            _ => Action::Tick { asleep: None },
        }
    }

    fn next_of_delivery(state: &State, at: At) -> Option<Action> {
        let delivery = state.delivery(at);
        Some(match delivery.stage {
            Stage::Asked => Action::Dispatch(at),
            Stage::Orphaned => {
                let is_found =
                    delivery.claim == Claim::Holds && state.rows[delivery.message].is_leased();
                return is_found.then_some(Action::ReleaseOrphan(at));
            }
            Stage::Waiting => Action::TakePermit { at, is_taken: true },
            Stage::Permitted => Action::Send { at, is_taken: true },
            Stage::Calling { is_taken, .. } => {
                let response = if is_taken {
                    Response::Success
                } else {
                    Response::ServerError
                };
                Action::Finish { at, response }
            }
            Stage::Recording(_) => Action::Record(at),
        })
    }
}
