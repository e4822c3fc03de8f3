//! The states of the model: rows, workers with their deliveries, and calls whose worker has died.
//!
//! Every deadline is a number of remaining ticks, so the number of states is finite although time is not.

use crate::outcome::FinalStatus;

use super::action::At;

pub(crate) type Ticks = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    /// `signaling.outbox`.
    pub(crate) rows: Vec<Row>,
    /// The processes, sorted by their deliveries. States that differ in the order of workers alone are the same.
    pub(crate) workers: Vec<Worker>,
    /// Calls whose worker has died. The API may still handle them.
    pub(crate) orphans: Vec<Orphan>,
    /// Breaches that only a step can show, as bits of [`Breach`].
    pub(crate) breaches: u8,
}

/// A breach of the promise by a step.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Breach {
    /// A final row got another status.
    ChangedAfterItsEnd = 1,
    /// A message was called although its row was final.
    CalledAfterItsEnd = 2,
    /// A message was called after its expiry.
    CalledAfterItsExpiry = 4,
    /// A message was cancelled during its call.
    CancelledWhileCalled = 8,
    /// A message was called again, and the attempt log has no entry for an earlier call.
    CalledWithoutExplanation = 16,
    /// An at-most-once message was called again although an earlier call is not known to have failed.
    CalledAgainAtMostOnce = 32,
}

/// A row of `signaling.outbox`, and the true history of its message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    /// The final `status`. `None` while pending.
    pub(crate) end: Option<End>,
    /// True if the row has a `claim_id`. [`Delivery::claim`] says whose.
    pub(crate) claimed: bool,
    /// Ticks until `due_at`, which is the end of the lease in a claimed row.
    pub(crate) due_in: Ticks,
    /// Ticks until `expires_at`, if it has one.
    pub(crate) expires_in: Option<Ticks>,
    /// `attempts`, counted up to `max_attempts`.
    pub(crate) attempts: u8,
    /// The `error` says that a worker may have called.
    pub(crate) tells_of_loss: bool,
    pub(crate) truth: Truth,
}

/// The true history of a message. Counters stop at 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Truth {
    pub(crate) calls: u8,
    /// Calls that the API accepted.
    pub(crate) arrivals: u8,
    /// `signaling.attempt` lacks an entry for a call.
    pub(crate) has_unlogged_call: bool,
    /// Of an at-most-once message: a call is not recorded as one without an effect.
    pub(crate) may_have_arrived: bool,
}

/// A final status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// Any of the three successes. The API decides between them.
    Sent,
    Failed,
    Expired,
    Unknown,
    Cancelled,
}

impl From<FinalStatus> for End {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::MessageSent
            | FinalStatus::MessageDelivered
            | FinalStatus::MessageOffline => Self::Sent,
            FinalStatus::Failed => Self::Failed,
            FinalStatus::Expired => Self::Expired,
            FinalStatus::Unknown => Self::Unknown,
        }
    }
}

/// A process. A new process replaces a dead one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) clock: Clock,
    pub(crate) deliveries: Vec<Delivery>,
}

/// The effect of sleep on the estimate of the database's clock (`DbClock`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Clock {
    #[default]
    Right,
    /// The host slept after the newest reading, so the estimate is behind and the two clocks of the host disagree.
    StoodStill,
    /// The host slept while the newest reading was in flight, so the estimate is behind and the two clocks agree.
    Behind,
}

/// A claimed message in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Delivery {
    pub(crate) message: usize,
    /// True if the row still has this delivery's `claim_id`.
    pub(crate) claim: Claim,
    /// The rest of the lease by this host's clock, which stops while the host sleeps.
    pub(crate) lease_left: Ticks,
    /// The host has slept since the claim.
    pub(crate) has_slept: bool,
    /// `attempts` in the claim's response.
    pub(crate) attempts: u8,
    pub(crate) stage: Stage,
}

/// True if a row still has a `claim_id`. Every claim has a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Claim {
    Holds,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The database has made the claim, and the response is in flight.
    Asked,
    /// The response was lost. The worker knows the `claim_id` alone.
    Orphaned,
    /// The worker has the message and waits for its slot.
    Waiting,
    /// The worker has its permit and has sent nothing. Only for `Hazards::workers_stop_before_the_wire`.
    Permitted,
    /// The request is sent. `left` is the rest of the request timeout. The API may respond later or never.
    Calling { left: Ticks, is_taken: bool },
    /// The record waits for the database.
    Recording(Record),
}

/// A record before the database has it (`Record` in `outbox/queue/record.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    /// The final status. `None` if the row stays pending.
    pub(crate) end: Option<End>,
    pub(crate) due_in: Ticks,
    /// True if the record counts an attempt.
    pub(crate) counts: bool,
    pub(crate) call: CallResult,
}

/// The information of a record about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum CallResult {
    NoCall,
    /// The message was sent. The log gets no entry.
    Success,
    /// The log says that the call had no effect.
    NoEffect,
    /// The log says that the outcome is not known.
    Ambiguous,
}

/// A call whose worker has died.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Orphan {
    pub(crate) message: usize,
    /// True if the row still has the claim of the call.
    pub(crate) claim: Claim,
    /// The longest time that the API may still handle the call.
    pub(crate) left: Ticks,
}

impl Row {
    pub(crate) fn is_due(&self) -> bool {
        self.end.is_none() && self.due_in == 0
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expires_in == Some(0)
    }

    /// True if a lease is open.
    pub(crate) fn is_leased(&self) -> bool {
        self.claimed && self.due_in > 0
    }
}

impl State {
    /// The open calls: the message, the claim, and the longest rest of the call.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (usize, Claim, Ticks)> {
        let of_workers = self
            .workers
            .iter()
            .flat_map(|worker| &worker.deliveries)
            .filter_map(|delivery| match delivery.stage {
                Stage::Calling { left, .. } => Some((delivery.message, delivery.claim, left)),
                _ => None,
            });
        let of_nobody = self
            .orphans
            .iter()
            .map(|orphan| (orphan.message, orphan.claim, orphan.left));
        of_workers.chain(of_nobody).filter(|&(_, _, left)| left > 0)
    }

    pub(crate) fn is_called(&self, message: usize) -> bool {
        self.calls().any(|(called, _, _)| called == message)
    }

    /// Ends all claims of a row, because its `claim_id` changes.
    pub(crate) fn end_claims_of(&mut self, message: usize) {
        let workers = self.workers.iter_mut();
        let deliveries = workers.flat_map(|worker| &mut worker.deliveries);
        let of_workers = deliveries.map(|delivery| (delivery.message, &mut delivery.claim));
        let orphans = self.orphans.iter_mut();
        let of_nobody = orphans.map(|orphan| (orphan.message, &mut orphan.claim));
        for (_, claim) in of_workers.chain(of_nobody).filter(|(of, _)| *of == message) {
            *claim = Claim::Over;
        }
    }

    pub(crate) fn breach(&mut self, breach: Breach) {
        self.breaches |= breach as u8;
    }

    pub(crate) fn has(&self, breach: Breach) -> bool {
        self.breaches & breach as u8 != 0
    }

    pub(crate) fn delivery(&self, at: At) -> &Delivery {
        &self.workers[at.worker].deliveries[at.place]
    }

    pub(crate) fn delivery_mut(&mut self, at: At) -> &mut Delivery {
        &mut self.workers[at.worker].deliveries[at.place]
    }

    /// Brings states that differ in the order of workers alone into one form.
    pub(crate) fn sort(&mut self) {
        for worker in &mut self.workers {
            worker.deliveries.sort_unstable();
            // The response of the next claim has a new reading. Only a delivery that waits for its slot uses this one.
            let waits = |delivery: &Delivery| delivery.stage == Stage::Waiting;
            if !worker.deliveries.iter().any(waits) {
                worker.clock = Clock::Right;
            }
        }
        self.workers.sort_unstable();
        self.orphans.sort_unstable();
    }
}
