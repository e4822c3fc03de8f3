//! What the world is made of: rows, workers with what they have in hand, calls that nobody waits for any more.
//!
//! Time is relative: everything that ends has the ticks that are left of it. So the number of states is finite
//! although time is not.

use crate::outcome::FinalStatus;

use super::action::At;

/// Ticks of time.
pub(crate) type Ticks = u8;

/// The world between two steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    /// `signaling.outbox`.
    pub(crate) rows: Vec<Row>,
    /// The processes. In a fixed order of what they have, not of who they are: it makes no difference who is who.
    pub(crate) workers: Vec<Worker>,
    /// Calls whose worker has died while the API may still be busy with them.
    pub(crate) orphans: Vec<Orphan>,
    /// The breaches of the promise that a single state does not show, as bits of [`Breach`].
    pub(crate) breaches: u8,
}

/// A breach of the promise that lies in a step.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Breach {
    /// A final row got another status.
    ChangedAfterItsEnd = 1,
    /// A message was called although its row was final.
    CalledAfterItsEnd = 2,
    /// A message was called after its expiry.
    CalledAfterItsExpiry = 4,
    /// A message was cancelled while a call of it was on.
    CancelledWhileCalled = 8,
    /// A message was called again, and nothing in the log says what became of an earlier call.
    CalledWithoutExplanation = 16,
    /// An at-most-once message was called again although an earlier call is not known to have failed.
    CalledAgainAtMostOnce = 32,
}

/// A row of `signaling.outbox`, with what was really done for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    /// `status`; none while pending.
    pub(crate) end: Option<End>,
    /// Whether it has a `claim_id`. Which one is known by [`Delivery::claim`].
    pub(crate) claimed: bool,
    /// Ticks until `due_at`: of a claimed row, what is left of the lease.
    pub(crate) due_in: Ticks,
    /// Ticks until `expires_at`, if it has one.
    pub(crate) expires_in: Option<Ticks>,
    /// `attempts`. Not counted further than `max_attempts`, beyond which it makes no difference.
    pub(crate) attempts: u8,
    /// The row's `error` says that a worker had it and nobody knows whether it called.
    pub(crate) tells_of_loss: bool,
    /// What the world knows and the row does not.
    pub(crate) truth: Truth,
}

/// What really happened to a message. Numbers are not counted beyond 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Truth {
    /// Calls that were started.
    pub(crate) calls: u8,
    /// Calls that the API took: so often it arrived.
    pub(crate) arrivals: u8,
    /// A call was made that `signaling.attempt` does not tell of.
    pub(crate) has_unlogged_call: bool,
    /// At-most-once only: a call was made that nobody has recorded as one without an effect.
    pub(crate) may_have_arrived: bool,
}

/// A final status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// Any of the three successes: what sets them apart is up to the API.
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

/// A process. One that dies is followed by a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    /// What it takes for the database's clock.
    pub(crate) clock: Clock,
    /// The messages between claim and record.
    pub(crate) deliveries: Vec<Delivery>,
}

/// A process's estimate of the database's clock (`DbClock`), as far as sleep can spoil it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Clock {
    /// It shows the time.
    #[default]
    Right,
    /// It is behind, because the host has slept since the newest reading: its two clocks disagree.
    StoodStill,
    /// It is behind, because the host slept while the newest reading was on its way: its two clocks agree since.
    Behind,
}

/// A claimed message in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Delivery {
    /// Which row it is of.
    pub(crate) message: usize,
    /// Whether the row still has the `claim_id` that this delivery names.
    pub(crate) claim: Claim,
    /// What is left of the lease by this host's own clock, which stands still while the host sleeps.
    pub(crate) lease_left: Ticks,
    /// The host has slept since the claim.
    pub(crate) has_slept: bool,
    /// `attempts` as the claim brought them.
    pub(crate) attempts: u8,
    /// How far it is.
    pub(crate) stage: Stage,
}

/// A `claim_id` is new for every claim, and the only thing ever asked of it is whether the row still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Claim {
    Holds,
    Over,
}

/// How far a delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The database has made the claim; its answer is on the way.
    Asked,
    /// The answer never came (`worker/unheard.rs`): only the claim's name is known.
    Unheard,
    /// It has its message and waits for the slot.
    Waiting,
    /// It has its permit, and nothing is written to the wire yet. Only where a worker may stop just there.
    Permitted,
    /// The request is out. `left` is what is left of the time that a call may last; whether the API takes the message
    /// is settled as the request goes out, and told later or never.
    Calling { left: Ticks, is_taken: bool },
    /// Its record waits for the database.
    Recording(Record),
}

/// A record on its way to the database (`Record` in `outbox/record.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    /// The final status, or none if the row goes back as pending.
    pub(crate) end: Option<End>,
    /// When the row is due again.
    pub(crate) due_in: Ticks,
    /// Whether it counts as an attempt.
    pub(crate) counts: bool,
    /// What it tells of a call.
    pub(crate) call: Told,
}

/// What a record tells of a call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Told {
    /// There was none.
    NoCall,
    /// It ended the message well: no entry in the log.
    Success,
    /// An entry in the log: the call had no effect.
    NoEffect,
    /// An entry in the log: nobody knows.
    Ambiguous,
}

/// A call whose worker has died.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Orphan {
    /// Which row it is of.
    pub(crate) message: usize,
    /// Whether the row still has the claim under which it was made.
    pub(crate) claim: Claim,
    /// How long the API may still be busy with it.
    pub(crate) left: Ticks,
}

impl Row {
    /// Whether it is pending and its `due_at` has come.
    pub(crate) fn is_due(&self) -> bool {
        self.end.is_none() && self.due_in == 0
    }

    /// Whether its time is over.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_in == Some(0)
    }

    /// Whether a worker has it. If the lease is over, none has.
    pub(crate) fn is_leased(&self) -> bool {
        self.claimed && self.due_in > 0
    }
}

impl State {
    /// Every call that the API may be busy with, with the claim that it was made under and how long it may last.
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

    /// Whether a call of a message is on.
    pub(crate) fn is_called(&self, message: usize) -> bool {
        self.calls().any(|(called, _, _)| called == message)
    }

    /// The row's `claim_id` is another one from now on, or none: nobody's claim is this row's any more.
    pub(crate) fn end_claims_of(&mut self, message: usize) {
        let deliveries = self
            .workers
            .iter_mut()
            .flat_map(|worker| &mut worker.deliveries);
        for delivery in deliveries.filter(|delivery| delivery.message == message) {
            delivery.claim = Claim::Over;
        }
        for orphan in self
            .orphans
            .iter_mut()
            .filter(|orphan| orphan.message == message)
        {
            orphan.claim = Claim::Over;
        }
    }

    /// Notes a breach of the promise.
    pub(crate) fn breach(&mut self, breach: Breach) {
        self.breaches |= breach as u8;
    }

    /// Whether a breach was noted.
    pub(crate) fn has(&self, breach: Breach) -> bool {
        self.breaches & breach as u8 != 0
    }

    /// The delivery at a place.
    pub(crate) fn delivery(&self, at: At) -> &Delivery {
        &self.workers[at.worker].deliveries[at.place]
    }

    /// The delivery at a place, to change it.
    pub(crate) fn delivery_mut(&mut self, at: At) -> &mut Delivery {
        &mut self.workers[at.worker].deliveries[at.place]
    }

    /// Brings states that differ only in who is who into one form.
    pub(crate) fn sort(&mut self) {
        for worker in &mut self.workers {
            worker.deliveries.sort_unstable();
            // The next claim's answer brings a new reading: only who waits for a slot goes by the present one.
            if !worker
                .deliveries
                .iter()
                .any(|delivery| delivery.stage == Stage::Waiting)
            {
                worker.clock = Clock::Right;
            }
        }
        self.workers.sort_unstable();
        self.orphans.sort_unstable();
    }
}
