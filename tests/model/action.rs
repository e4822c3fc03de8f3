//! The steps by their names in the code.

/// A delivery: a worker and a place in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) worker: usize,
    pub(crate) place: usize,
}

/// A step. Each is one statement, or one function of a worker, and takes no time. Any time may pass between two of
/// them: a worker that is stopped, an answer or a record that is late, and a database that refuses for a while are
/// steps that are not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `signaling.claim`, for one row that is due. A batch is many of them.
    Claim { worker: usize, message: usize },
    /// `LaneLoop::hand_out`: the claim's answer is here.
    HandOut(At),
    /// `LaneLoop::claim` fails: the claim's answer will never come.
    LoseTheAnswer(At),
    /// `Outbox::give_back_claim`: a claim without an answer is given back.
    GiveBackClaim(At),
    /// `Outbox::peek`: the worker reads the database's clock again.
    Peek { worker: usize },
    /// `deliver` at a wave: the message goes back before its call (lane held, shutdown).
    Recall(At),
    /// `Client::connection` fails: as good as a call that failed.
    NotSent(At),
    /// `SendPermit::take`, then `Client::send`; or why not.
    TakePermit { at: At, is_taken: bool },
    /// `Client::send` alone, for a worker that had stopped just before it.
    Send { at: At, is_taken: bool },
    /// `conclude`: the call is over, for the worker.
    Conclude { at: At, answer: Response },
    /// `signaling.record`.
    Record(At),
    /// The same, and the database's answer is lost: it is tried again (`Recorder::write`).
    RecordUnanswered(At),
    /// The database refuses the record for what is in it: it is given up (`Recorder::write`).
    GiveUpRecord(At),
    /// The process dies with all that it has in hand. Another one takes its place.
    Crash { worker: usize },
    /// `Outbox::expire`.
    Expire { message: usize },
    /// `signaling.cancel`.
    Cancel { message: usize },
    /// Time passes, for one host perhaps asleep.
    Tick { asleep: Option<usize> },
}

/// What a call comes to, for the worker.
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
    /// What the API may say of a call that it took, and of one that it did not.
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
