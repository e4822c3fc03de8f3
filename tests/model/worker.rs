//! The steps of a worker between claim and record, and the effects of time and crashes.

use std::time::Duration;

use crate::outcome::{self, DeliveryPolicy, Next, Outcome};
use crate::pace::{DbTime, NoPermit};

use super::action::{At, Response};
use super::protocol::Protocol;
use super::state::{Breach, CallResult, Clock, End, Orphan, Record, Stage, State, Ticks, Worker};

/// The delay before a retry. A claim may come later, so this delay stands for any longer one.
const BACKOFF: Ticks = 1;

impl Protocol {
    /// `Outbox::claim` returns, with a reading of the clock, and `ClaimLoop::dispatch` starts the delivery.
    pub(crate) fn dispatch(&self, state: &mut State, at: At) {
        let delivery = state.delivery_mut(at);
        delivery.stage = Stage::Waiting;
        if !self.rules.lease_counts_from_the_request {
            delivery.lease_left = self.lease;
        }
        let clock = match (
            delivery.has_slept,
            self.rules.standstill_counts_from_the_request,
        ) {
            (false, _) => Clock::Right,
            (true, true) => Clock::StoodStill,
            (true, false) => Clock::Behind,
        };
        state.workers[at.worker].clock = clock;
    }

    /// `Outbox::claim` fails after the database has made the claim: `OrphanedClaims::add`.
    pub(crate) fn lose_response(state: &mut State, at: At) {
        let delivery = state.delivery_mut(at);
        delivery.stage = Stage::Orphaned;
        delivery.has_slept = false;
        delivery.attempts = 0;
    }

    /// The decision of `SendPermit::take` in `pace/permit.rs`.
    pub(crate) fn permit(&self, state: &State, at: At) -> Result<(), NoPermit> {
        let (delivery, clock) = (state.delivery(at), state.workers[at.worker].clock);
        let has_waited = delivery.lease_left < self.lease;
        // A tick is longer than the tolerance of a slot. A right clock shows the time that the host slept.
        let has_missed_its_slot = has_waited || delivery.has_slept && clock == Clock::Right;
        if self.rules.permit_checks_the_clock && clock == Clock::StoodStill {
            Err(NoPermit::HostSuspended)
        } else if self.rules.permit_checks_the_slot && has_missed_its_slot {
            Err(NoPermit::SlotMissed)
        } else if self.rules.permit_checks_the_lease && delivery.lease_left <= self.request_timeout
        {
            Err(NoPermit::LeaseTooShort)
        } else {
            Ok(())
        }
    }

    /// The end of `prepare` in `worker/delivery.rs`: expired, late, or a permit. A permit is a call at once.
    pub(crate) fn take_permit(&self, state: &mut State, at: At, is_taken: bool) {
        let knows_the_time = state.workers[at.worker].clock == Clock::Right;
        let has_expired = state.rows[state.delivery(at).message].has_expired();
        if self.rules.expiry_is_checked && has_expired && knows_the_time {
            let record = Record {
                end: Some(End::Expired),
                ..Record::UNCHANGED
            };
            Self::hand_over(state, at, record);
        } else if self.permit(state, at).is_err() {
            Self::release(state, at);
        } else if self.hazards.workers_stop_before_the_wire {
            state.delivery_mut(at).stage = Stage::Permitted;
        } else {
            self.send(state, at, is_taken);
        }
    }

    /// `Client::send` in `signaling/client.rs`: the request goes out.
    pub(crate) fn send(&self, state: &mut State, at: At, is_taken: bool) {
        let delivery = state.delivery_mut(at);
        let message = delivery.message;
        let left = self.request_timeout;
        delivery.stage = Stage::Calling { left, is_taken };
        (delivery.lease_left, delivery.has_slept) = (0, false);

        let at_most_once = self.messages[message].at_most_once;
        let row = &mut state.rows[message];
        let truth = &row.truth;
        let breaches = [
            (row.end.is_some(), Breach::CalledAfterItsEnd),
            (row.has_expired(), Breach::CalledAfterItsExpiry),
            (truth.has_unlogged_call, Breach::CalledWithoutExplanation),
            (truth.may_have_arrived, Breach::CalledAgainAtMostOnce),
        ];
        row.truth.calls = (row.truth.calls + 1).min(2);
        row.truth.arrivals = (row.truth.arrivals + u8::from(is_taken)).min(2);
        row.truth.has_unlogged_call = true;
        row.truth.may_have_arrived = at_most_once;
        for (_, breach) in breaches.into_iter().filter(|(is_breach, _)| *is_breach) {
            state.breach(breach);
        }
    }

    /// `finish` in `worker/delivery.rs`. `outcome::next`, the worker's own code, decides about the row.
    pub(crate) fn finish(&self, state: &mut State, at: At, response: Response) {
        let call = match response {
            Response::Success => CallResult::Success,
            Response::Ambiguous => CallResult::Ambiguous,
            _ => CallResult::NoEffect,
        };
        let outcome = match Outcome::from(response) {
            Outcome::Ambiguous if !self.rules.success_needs_a_response => Outcome::MessageSent,
            outcome => outcome,
        };
        let record = self.decide(state, at, outcome, call);
        Self::hand_over(state, at, record);
    }

    /// `Unsent::NotConnected` in `worker/delivery.rs`: the worker could reach no host.
    pub(crate) fn not_sent(&self, state: &mut State, at: At) {
        let record = self.decide(state, at, Outcome::Unserved, CallResult::NoCall);
        Self::hand_over(state, at, record);
    }

    fn decide(&self, state: &State, at: At, outcome: Outcome, call: CallResult) -> Record {
        let delivery = state.delivery(at);
        let message = &self.messages[delivery.message];
        let time = |ticks: Ticks| DbTime::from_micros(i64::from(ticks));
        let policy = DeliveryPolicy {
            attempts: u32::from(delivery.attempts),
            uncharged: 0,
            failing_since: None,
            max_attempts: u32::from(message.max_attempts),
            at_most_once: message.at_most_once && self.rules.ambiguity_ends_at_most_once,
            expires_at: state.rows[delivery.message].expires_in.map(time),
            probe: false,
        };
        let backoff = Duration::from_micros(u64::from(BACKOFF));
        // Another model covers the question whose fault a failure is.
        let is_charged = !matches!(outcome, Outcome::Throttled | Outcome::Unauthorized);
        let next = outcome::next(outcome, is_charged, policy, time(0), backoff, Duration::MAX);
        let (end, due_in, counts) = match next {
            Next::Final(status) => (Some(status.into()), 0, true),
            Next::Retry(_) => (None, BACKOFF, is_charged),
        };
        Record {
            end,
            due_in,
            counts,
            call,
        }
    }

    /// The worker releases the message unchanged (`Record::release` in `outbox/queue/record.rs`).
    pub(crate) fn release(state: &mut State, at: At) {
        Self::hand_over(state, at, Record::UNCHANGED);
    }

    fn hand_over(state: &mut State, at: At, record: Record) {
        let delivery = state.delivery_mut(at);
        delivery.stage = Stage::Recording(record);
        (delivery.lease_left, delivery.has_slept, delivery.attempts) = (0, false, 0);
    }

    /// The process dies, and a new one starts. The API continues with its calls.
    pub(crate) fn crash(state: &mut State, worker: usize) {
        for delivery in std::mem::take(&mut state.workers[worker]).deliveries {
            if let Stage::Calling {
                left: left @ 1.., ..
            } = delivery.stage
            {
                state.orphans.push(Orphan {
                    message: delivery.message,
                    claim: delivery.claim,
                    left,
                });
            }
        }
    }

    /// A tick passes on all clocks except those of a sleeping host.
    pub(crate) fn tick(state: &mut State, asleep: Option<usize>) {
        for row in &mut state.rows {
            row.due_in = row.due_in.saturating_sub(1);
            row.expires_in = row.expires_in.map(|left| left.saturating_sub(1));
        }
        for orphan in &mut state.orphans {
            orphan.left -= 1;
        }
        state.orphans.retain(|orphan| orphan.left > 0);
        for (index, worker) in state.workers.iter_mut().enumerate() {
            worker.pass_a_tick(asleep == Some(index));
        }
    }
}

impl Worker {
    fn pass_a_tick(&mut self, is_asleep: bool) {
        if is_asleep {
            self.clock = Clock::StoodStill;
        }
        for delivery in &mut self.deliveries {
            match &mut delivery.stage {
                Stage::Calling { left, .. } => *left = left.saturating_sub(1),
                Stage::Recording(record) => record.due_in = record.due_in.saturating_sub(1),
                _ if is_asleep => delivery.has_slept = true,
                _ => delivery.lease_left = delivery.lease_left.saturating_sub(1),
            }
        }
        // After the lease, the worker no longer tries to release the claim.
        self.deliveries
            .retain(|delivery| delivery.stage != Stage::Orphaned || delivery.lease_left > 0);
    }
}

impl Record {
    const UNCHANGED: Self = Self {
        end: None,
        due_in: 0,
        counts: false,
        call: CallResult::NoCall,
    };
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Self {
        match response {
            Response::Success => Self::MessageSent,
            Response::ServerError => Self::Transient,
            Response::TooManyRequests => Self::Throttled,
            Response::Unauthorized => Self::Unauthorized,
            Response::Rejected => Self::Rejected,
            Response::Ambiguous => Self::Ambiguous,
        }
    }
}
