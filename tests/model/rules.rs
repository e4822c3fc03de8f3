//! What a message promises, what may go wrong, and the rules that hold the promise.

use super::state::Ticks;

/// The producer's columns of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) at_most_once: bool,
    pub(crate) max_attempts: u8,
    pub(crate) expires_in: Option<Ticks>,
}

impl Message {
    /// Called until it is known to have arrived, three times at most where calls fail, and for ever valid.
    pub(crate) const AT_LEAST_ONCE: Self = Self {
        at_most_once: false,
        max_attempts: 3,
        expires_in: None,
    };
    /// The same, and never called again once it may have arrived.
    pub(crate) const AT_MOST_ONCE: Self = Self {
        at_most_once: true,
        ..Self::AT_LEAST_ONCE
    };

    pub(crate) fn expiring_in(self, ticks: Ticks) -> Self {
        Self {
            expires_in: Some(ticks),
            ..self
        }
    }
}

/// What may go wrong only where it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hazards {
    /// A host sleeps: its own clock stands still meanwhile. It may be waiting for the answer to a claim.
    pub(crate) hosts_sleep: bool,
    /// A worker also stops between its permit and the first byte of the request.
    pub(crate) workers_stop_before_the_wire: bool,
}

/// The rules that hold the promise, each with where it is kept.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each can be taken away alone"
)]
pub(crate) struct Rules {
    /// `signaling.record`: `outbox.claim_id = record.claim_id`.
    pub(crate) record_names_its_claim: bool,
    /// `signaling.record`: `outbox.status = 'pending'`.
    pub(crate) record_wants_a_pending_row: bool,
    /// `SendPermit::take`: `Late::Lease`.
    pub(crate) permit_checks_the_lease: bool,
    /// `SendPermit::take`: `Late::Slot`. Where this is off, a call may start at any time after its slot, as if the
    /// estimate of the database's clock were worth nothing.
    pub(crate) permit_checks_the_slot: bool,
    /// `SendPermit::take`: `Late::StoodStill`.
    pub(crate) permit_checks_the_clock: bool,
    /// `DbClock::was_suspended`: a standstill is noticed from the moment on at which the clock's newest reading was
    /// asked for, not from its answer.
    pub(crate) standstill_counts_from_the_asking: bool,
    /// `queue/claim.rs`: `lease_ends` is counted from before the claim was asked for, not from its answer.
    pub(crate) lease_counts_from_the_asking: bool,
    /// `signaling.claim`: a row whose lease is over is due, although it has a claim.
    pub(crate) lost_rows_are_due: bool,
    /// `signaling.claim`: a lost row that is at-most-once ends as unknown.
    pub(crate) claim_ends_lost_at_most_once: bool,
    /// `signaling.claim`: a lost row that had its last attempt ends as failed.
    pub(crate) claim_ends_lost_last_attempts: bool,
    /// `signaling.claim`: a lost row is logged.
    pub(crate) claim_logs_lost: bool,
    /// `signaling.claim`, and the look at the clock in `worker/delivery.rs`: no call after `expires_at`.
    pub(crate) expiry_is_looked_at: bool,
    /// `signaling.cancel` and `Outbox::expire`: only rows without a claim, or whose lease is over.
    pub(crate) cancel_respects_claims: bool,
    pub(crate) expire_respects_claims: bool,
    /// `signaling.cancel` and `Outbox::expire`: the `error` of a lost row says that it was lost.
    pub(crate) ends_tell_of_loss: bool,
    /// `outcome::classify`: a success is a 200 with a readable body, and nothing else.
    pub(crate) success_needs_an_answer: bool,
    /// `outcome::next`: an ambiguous call ends a message that is at-most-once.
    pub(crate) ambiguity_ends_at_most_once: bool,
}

impl Rules {
    /// Those that the code keeps: all.
    pub(crate) const KEPT: Self = Self {
        record_names_its_claim: true,
        record_wants_a_pending_row: true,
        permit_checks_the_lease: true,
        permit_checks_the_slot: true,
        permit_checks_the_clock: true,
        standstill_counts_from_the_asking: true,
        lease_counts_from_the_asking: true,
        lost_rows_are_due: true,
        claim_ends_lost_at_most_once: true,
        claim_ends_lost_last_attempts: true,
        claim_logs_lost: true,
        expiry_is_looked_at: true,
        cancel_respects_claims: true,
        expire_respects_claims: true,
        ends_tell_of_loss: true,
        success_needs_an_answer: true,
        ambiguity_ends_at_most_once: true,
    };
}
