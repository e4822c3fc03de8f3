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

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) error: &'a str,
    /// False for a late response of a host that the worker has left, and for a recipient that did not acknowledge in time.
    pub(crate) may_vote: bool,
    /// Hash of the destination or channel.
    pub(crate) target: u64,
    pub(crate) kind: AttemptKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) is_charged: bool,
    /// None if the message was accepted.
    pub(crate) fault: Option<Fault>,
    pub(crate) evidence: Option<String>,
    pub(crate) transition: Transition,
}

/// The change that follows from an attempt or from a report of the other workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Transition {
    #[default]
    None,
    Doubt,
    /// The caller must hold the lane for all workers, or its probe failed and it stays held.
    Hold(HoldKind),
    /// The API answered the probe of the held lane.
    Release,
    StepAside,
    /// This worker was aside, and serves the app again.
    Return,
    Throttle,
}

/// How many messages a worker may claim now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    Claim(usize),
    /// None before this time, unless the state changes.
    Wait(Instant),
}
