//! The promises of a message, the hazards, and the rules that keep the promise.

use super::state::Ticks;

/// The producer's columns of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) at_most_once: bool,
    pub(crate) max_attempts: u8,
    pub(crate) expires_in: Option<Ticks>,
}

impl Message {
    /// At least once, with three attempts and without an expiry.
    pub(crate) const AT_LEAST_ONCE: Self = Self {
        at_most_once: false,
        max_attempts: 3,
        expires_in: None,
    };
    /// Never called again after an ambiguous call.
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

/// Hazards of some explorations.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hazards {
    /// A host may sleep, also while a claim is in flight. Its clock stops meanwhile.
    pub(crate) hosts_sleep: bool,
    /// A worker may be suspended between its permit and the first byte of the request.
    pub(crate) workers_stop_before_the_wire: bool,
}

/// The rules that keep the promise, each with its place in the code.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each can be taken away alone"
)]
pub(crate) struct Rules {
    /// `signaling.record`: `outbox.claim_id is not distinct from given.claim_id`.
    pub(crate) record_names_its_claim: bool,
    /// `signaling.record`: `outbox.status = 'pending'`.
    pub(crate) record_wants_a_pending_row: bool,
    /// `SendPermit::take`: `NoPermit::LeaseTooShort`.
    pub(crate) permit_checks_the_lease: bool,
    /// `SendPermit::take`: `NoPermit::SlotMissed`. Without this rule, a call may start at any time after its slot.
    pub(crate) permit_checks_the_slot: bool,
    /// `SendPermit::take`: `NoPermit::HostSuspended`.
    pub(crate) permit_checks_the_clock: bool,
    /// `DbClock::was_suspended`: a suspension counts from the request of the newest reading, not from its response.
    pub(crate) standstill_counts_from_the_request: bool,
    /// `outbox/queue/claim.rs`: `lease_ends` counts from the request of the claim, not from its response.
    pub(crate) lease_counts_from_the_request: bool,
    /// `signaling.claim`: a row whose lease is over is due, although it has a claim.
    pub(crate) lost_rows_are_due: bool,
    /// `signaling.claim`: a lost row that is at-most-once ends as unknown.
    pub(crate) claim_ends_lost_at_most_once: bool,
    /// `signaling.claim`: a lost row that had its last attempt ends as failed.
    pub(crate) claim_ends_lost_last_attempts: bool,
    /// `signaling.claim`: a lost row is logged.
    pub(crate) claim_logs_lost: bool,
    /// `signaling.claim`, and `permit` in `worker/delivery.rs`: no call after `expires_at`.
    pub(crate) expiry_is_checked: bool,
    /// `signaling.cancel` and `Outbox::expire`: only rows without a claim, or whose lease is over.
    pub(crate) cancel_respects_claims: bool,
    pub(crate) expire_respects_claims: bool,
    /// `signaling.cancel` and `Outbox::expire`: the `error` of a lost row says that it was lost.
    pub(crate) ends_tell_of_loss: bool,
    /// `outcome::classify`: only a 200 with a readable body is a success.
    pub(crate) success_needs_a_response: bool,
    /// `outcome::next`: an ambiguous call ends a message that is at-most-once.
    pub(crate) ambiguity_ends_at_most_once: bool,
}

impl Rules {
    /// The rules of the code: all.
    pub(crate) const KEPT: Self = Self {
        record_names_its_claim: true,
        record_wants_a_pending_row: true,
        permit_checks_the_lease: true,
        permit_checks_the_slot: true,
        permit_checks_the_clock: true,
        standstill_counts_from_the_request: true,
        lease_counts_from_the_request: true,
        lost_rows_are_due: true,
        claim_ends_lost_at_most_once: true,
        claim_ends_lost_last_attempts: true,
        claim_logs_lost: true,
        expiry_is_checked: true,
        cancel_respects_claims: true,
        expire_respects_claims: true,
        ends_tell_of_loss: true,
        success_needs_a_response: true,
        ambiguity_ends_at_most_once: true,
    };
}
