//! The SQL statements. Each is atomic, as in the database.

use super::action::At;
use super::protocol::Protocol;
use super::state::{Breach, CallResult, Claim, Delivery, End, Row, Stage, State};

impl Protocol {
    /// True if a claim takes a row.
    pub(crate) fn can_claim(&self, row: &Row) -> bool {
        row.is_due() && (self.rules.lost_rows_are_due || !row.claimed)
    }

    /// `signaling.claim`, for a row that is due.
    ///
    /// The model omits slots, lanes and the order of rows, because these only delay claims.
    pub(crate) fn claim(&self, state: &mut State, worker: usize, message: usize) {
        let policy = &self.messages[message];
        let row = &mut state.rows[message];
        let is_lost = row.claimed;
        if is_lost {
            row.attempts = (row.attempts + 1).min(policy.max_attempts);
            if self.rules.claim_logs_lost {
                row.truth.has_unlogged_call = false;
            }
        }
        if is_lost && policy.at_most_once && self.rules.claim_ends_lost_at_most_once {
            row.end = Some(End::Unknown);
        } else if row.has_expired() && self.rules.expiry_is_checked {
            row.end = Some(End::Expired);
        } else if is_lost
            && row.attempts >= policy.max_attempts
            && self.rules.claim_ends_lost_last_attempts
        {
            row.end = Some(End::Failed);
        }
        if row.end.is_some() {
            row.tells_of_loss |= is_lost;
            return;
        }
        row.claimed = true;
        row.due_in = self.lease;
        let attempts = row.attempts;
        state.end_claims_of(message);
        state.workers[worker].deliveries.push(Delivery {
            message,
            claim: Claim::Holds,
            lease_left: self.lease,
            has_slept: false,
            attempts,
            stage: Stage::Asked,
        });
    }

    /// `signaling.record`. A record whose claim is over writes nothing.
    pub(crate) fn record(&self, state: &mut State, at: At) {
        let delivery = state.delivery(at);
        let Stage::Recording(record) = &delivery.stage else {
            unreachable!("only a record is recorded");
        };
        let (message, claim, record) = (delivery.message, delivery.claim, record.clone());
        let row = &mut state.rows[message];
        if self.rules.record_names_its_claim && claim == Claim::Over
            || self.rules.record_wants_a_pending_row && row.end.is_some()
        {
            return;
        }
        row.end = record.end;
        row.due_in = record.due_in;
        let max_attempts = self.messages[message].max_attempts;
        row.attempts = (row.attempts + u8::from(record.counts)).min(max_attempts);
        if matches!(record.call, CallResult::NoEffect | CallResult::Ambiguous) {
            row.truth.has_unlogged_call = false;
        }
        if record.call == CallResult::NoEffect {
            row.truth.may_have_arrived = false;
        }
        if record.end.is_none() {
            row.claimed = false;
            state.end_claims_of(message);
        }
    }

    /// `signaling.release` (`Outbox::release` in `outbox/queue/lane.rs`). The worker repeats it until the lease ends.
    pub(crate) fn release_orphan(state: &mut State, at: At) {
        let (message, claim) = (state.delivery(at).message, state.delivery(at).claim);
        let row = &mut state.rows[message];
        if row.end.is_none() && row.is_leased() && claim == Claim::Holds {
            row.claimed = false;
            row.due_in = 0;
            state.end_claims_of(message);
            state.workers[at.worker].deliveries.remove(at.place);
        }
    }

    /// `signaling.expire` (`Outbox::expire` in `outbox/queue/lane.rs`).
    pub(crate) fn expire(&self, state: &mut State, message: usize) {
        let row = &mut state.rows[message];
        let is_free = !row.is_leased() || !self.rules.expire_respects_claims;
        if row.end.is_none() && row.has_expired() && is_free {
            let is_unknown = row.claimed && self.messages[message].at_most_once;
            row.end = Some(if is_unknown {
                End::Unknown
            } else {
                End::Expired
            });
            row.tells_of_loss |= row.claimed && self.rules.ends_tell_of_loss;
        }
    }

    /// `signaling.cancel` in `migrations/functions/cancel.sql`.
    pub(crate) fn cancel(&self, state: &mut State, message: usize) {
        let row = &mut state.rows[message];
        let is_free = !row.is_leased() || !self.rules.cancel_respects_claims;
        if row.end.is_none() && is_free {
            row.end = Some(End::Cancelled);
            row.tells_of_loss |= row.claimed && self.rules.ends_tell_of_loss;
            if state.is_called(message) {
                state.breach(Breach::CancelledWhileCalled);
            }
        }
    }
}
