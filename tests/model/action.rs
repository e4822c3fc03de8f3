//! The steps by their names in the code.

/// The position of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) worker: usize,
    pub(crate) place: usize,
}

/// A step: one statement or one function of a worker. A step takes no time, and any time may pass between two steps. So
/// a suspended worker, a late response and an outage of the database are steps that the model takes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `signaling.claim`, for one row that is due. A batch is many of them.
    Claim { worker: usize, message: usize },
    /// `ClaimLoop::dispatch`: the worker receives the claim's response.
    Dispatch(At),
    /// `ClaimLoop::claim` fails: the claim's response is lost.
    LoseResponse(At),
    /// `OrphanedClaims::release`: the worker releases a claim whose response was lost.
    ReleaseOrphan(At),
    /// `Outbox::next_due`: the worker reads the database's clock again.
    ReadClock { worker: usize },
    /// `Record::release`: the worker releases the message before its call (lane held, shutdown).
    Release(At),
    /// `Client::connection` fails.
    NotSent(At),
    /// `SendPermit::take`, then `Client::send` if there is a permit.
    TakePermit { at: At, is_taken: bool },
    /// `Client::send` alone, after a suspension of the worker.
    Send { at: At, is_taken: bool },
    /// `finish` in `worker/delivery.rs`: the worker has the outcome of the call.
    Finish { at: At, response: Response },
    /// `signaling.record`.
    Record(At),
    /// `signaling.record`, whose response is lost. The recorder tries again (`Recorder::write`).
    RecordWithoutResponse(At),
    /// The database refuses the record, and the recorder gives it up (`Recorder::write`).
    GiveUpRecord(At),
    /// The process dies, and a new one replaces it.
    Crash { worker: usize },
    /// `Outbox::expire`.
    Expire { message: usize },
    /// `signaling.cancel`.
    Cancel { message: usize },
    /// A tick passes. One host may be asleep.
    Tick { asleep: Option<usize> },
}

/// The outcome of a call for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Response {
    /// A 200 with a readable body.
    Success,
    /// 500, or a status that only a gateway gives, such as 404.
    ServerError,
    /// 429.
    TooManyRequests,
    /// 401, 403.
    Unauthorized,
    /// 400, 415, 435.
    Rejected,
    /// A timeout, a broken connection, 408, any 5xx but 500.
    Ambiguous,
}

impl Response {
    /// The possible outcomes of a call that the API accepted, and of one that it did not.
    pub(crate) fn possible(is_taken: bool) -> &'static [Self] {
        if is_taken {
            &[Self::Success, Self::Ambiguous]
        } else {
            &[
                Self::ServerError,
                Self::TooManyRequests,
                Self::Unauthorized,
                Self::Rejected,
                Self::Ambiguous,
            ]
        }
    }
}
