//! The circuit breaker's input and its decisions.

use std::time::Instant;

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    First,
    Retry,
    /// The one attempt that a held lane makes at a time.
    Probe,
}

/// A finished attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) error: &'a str,
    /// Index of the host that was called.
    pub(crate) host: usize,
    /// Index of the host that serves the next calls.
    pub(crate) serving_host: usize,
    /// Hash of the destination or channel.
    pub(crate) target: u64,
    pub(crate) kind: AttemptKind,
    /// The call waited for its recipient, and timed out or was answered 408.
    pub(crate) is_ack_timeout: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) is_charged: bool,
    /// None if the message was accepted.
    pub(crate) fault: Option<Fault>,
    pub(crate) evidence: Option<String>,
    pub(crate) transition: Transition,
}

/// The change that follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    None,
    /// The API answered the probe of the held lane.
    Release,
    /// The probe of the held lane failed.
    Extend(HoldKind),
    /// This worker begins to doubt.
    Doubt,
    /// This worker was aside, and serves the app again.
    Return,
    /// A 429 cuts the rate of the app.
    Throttle,
}

/// The end of a doubt, or of stepping aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The caller must hold the lane for all workers.
    Hold {
        kind: HoldKind,
        reason: String,
    },
    SteppedAside {
        reason: String,
    },
    /// No other worker serves the app any more, so this one serves it again.
    Returned,
}

/// How many messages a worker may claim now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// This many, beside those in flight.
    Claim(usize),
    /// None before this time, unless the state changes.
    Wait(Instant),
}
