//! The circuit breaker's input and its decisions.

use std::time::Instant;

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum AttemptKind {
    First,
    Retry,
    /// The lane is held, and this is its probe.
    Probe,
}

/// A finished attempt.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Attempt<'a> {
    pub(in crate::worker) outcome: Outcome,
    pub(in crate::worker) error: &'a str,
    /// Index of the host that was called.
    pub(in crate::worker) host: usize,
    /// Index of the host that the next calls go to.
    pub(in crate::worker) serving_host: usize,
    /// The destination or channel, as a hash.
    pub(in crate::worker) target: u64,
    pub(in crate::worker) kind: AttemptKind,
    /// The message waits for its receiver, and no response came in time, or a 408.
    pub(in crate::worker) is_ack_timeout: bool,
    /// The API answered 429, and the destination explains it.
    pub(in crate::worker) is_throttled_by_destination: bool,
}

/// The decision about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Verdict {
    pub(in crate::worker) is_charged: bool,
    /// None if the message was accepted.
    pub(in crate::worker) fault: Option<Fault>,
    pub(in crate::worker) evidence: Option<String>,
    pub(in crate::worker) transition: Transition,
}

/// The change that follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Transition {
    None,
    /// The probe of the held lane was answered.
    Release,
    /// The probe of the held lane has failed.
    Extend(HoldKind),
    /// This worker begins to doubt.
    Doubt,
    /// This worker comes back from aside.
    Return,
    /// A 429 cuts the rate of the app.
    Throttle,
}

/// The decision of a worker that doubts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) enum Decision {
    Hold {
        kind: HoldKind,
        reason: String,
    },
    StepAside {
        reason: String,
    },
    /// This worker makes a few calls more before it steps aside.
    TryAgain,
    /// No other worker serves the app any more, so this one does again.
    Return,
}

/// How many messages a worker may claim now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Allowance {
    /// So many, beside those in flight.
    Claim(usize),
    /// None before this time, unless the state changes.
    Wait(Instant),
}

impl Verdict {
    pub(super) fn failed(
        is_charged: bool,
        fault: Fault,
        evidence: &str,
        transition: Transition,
    ) -> Self {
        Self {
            is_charged,
            fault: Some(fault),
            evidence: Some(evidence.to_owned()),
            transition,
        }
    }
}
