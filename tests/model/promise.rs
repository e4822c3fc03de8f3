//! The promise as properties of the model. The properties mean something only if the model reaches the situations.

use super::explorer::Property;
use super::protocol::Protocol;
use super::rules::Message;
use super::state::{Breach, Claim, Clock, Delivery, End, Row, Stage, State};

pub(crate) const FINAL: &str = "a final row stays final, with one status";
pub(crate) const ALONE: &str = "no two calls of a message overlap";
pub(crate) const LEASED: &str = "a call ends before its lease";
pub(crate) const NOT_AFTER_THE_END: &str = "a message whose row is final is not called";
pub(crate) const NOT_AFTER_EXPIRY: &str = "no call starts after the message has expired";
pub(crate) const CANCELLED: &str = "a message that is being called is not cancelled";
pub(crate) const EXPLAINED: &str = "a repeated call is explained by the log";
pub(crate) const TOLD: &str = "a message that ended without success tells of each of its calls";
pub(crate) const SUCCESS: &str = "a message that ended as sent has arrived";
pub(crate) const ONCE: &str =
    "an at-most-once message is called again only if its earlier calls are known to have failed";
pub(crate) const ARRIVES_ONCE: &str = "an at-most-once message arrives at most once";
pub(crate) const UNKNOWN: &str =
    "an at-most-once message that may have arrived does not end as failed or expired";
pub(crate) const WITHIN_ATTEMPTS: &str = "no call starts when max_attempts are used up";
pub(crate) const NOT_LOST: &str = "once the faults end, every message ends";

type Condition = fn(&Protocol, &State) -> bool;

/// The promise, and the situations that are possible with the protocol's messages and hosts.
pub(crate) fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let any = |is: fn(&Message) -> bool| protocol.messages.iter().any(is);
    let possible: [(bool, &str, Condition); 4] = [
        (
            any(|message| message.at_most_once),
            "a message ends as unknown",
            |_, state| ends(state, End::Unknown),
        ),
        (
            any(|message| !message.at_most_once),
            "a message arrives twice",
            |_, state| state.rows.iter().any(|row| row.truth.arrivals > 1),
        ),
        (
            any(|message| message.expires_in.is_some()),
            "a message expires",
            |_, state| ends(state, End::Expired),
        ),
        (
            protocol.hazards.hosts_sleep,
            "a host sleeps before a slot",
            |_, state| {
                let mut workers = state.workers.iter();
                workers.any(|worker| worker.clock == Clock::StoodStill)
            },
        ),
    ];
    let possible = possible
        .into_iter()
        .filter(|(is_possible, ..)| *is_possible);
    let promise = PROMISE.map(|(name, condition)| Property::always(name, condition));
    let situations = SITUATIONS.map(|(name, condition)| Property::sometimes(name, condition));
    let possible = possible.map(|(_, name, condition)| Property::sometimes(name, condition));
    promise
        .into_iter()
        .chain(situations)
        .chain(possible)
        .collect()
}

const PROMISE: [(&str, Condition); 14] = [
    (FINAL, |_, state| !state.has(Breach::ChangedAfterItsEnd)),
    (ALONE, |_, state| {
        let calls_of = |message| state.calls().filter(move |call| call.0 == message);
        (0..state.rows.len()).all(|message| calls_of(message).count() <= 1)
    }),
    (LEASED, |_, state| {
        let mut calls = state.calls();
        calls.all(|(message, claim, left)| {
            claim == Claim::Holds && state.rows[message].due_in >= left
        })
    }),
    (NOT_AFTER_THE_END, |_, state| {
        let mut calls = state.calls();
        !state.has(Breach::CalledAfterItsEnd)
            && calls.all(|(message, _, _)| state.rows[message].end.is_none())
    }),
    (NOT_AFTER_EXPIRY, |_, state| {
        !state.has(Breach::CalledAfterItsExpiry)
    }),
    (CANCELLED, |_, state| {
        !state.has(Breach::CancelledWhileCalled)
    }),
    (EXPLAINED, |_, state| {
        !state.has(Breach::CalledWithoutExplanation)
    }),
    (TOLD, |_, state| {
        state.rows.iter().all(|row| {
            matches!(row.end, None | Some(End::Sent))
                || !row.truth.has_unlogged_call
                || row.tells_of_loss
        })
    }),
    (SUCCESS, |_, state| {
        let mut rows = state.rows.iter();
        rows.all(|row| row.end != Some(End::Sent) || row.truth.arrivals > 0)
    }),
    (ONCE, |_, state| !state.has(Breach::CalledAgainAtMostOnce)),
    (ARRIVES_ONCE, |protocol, state| {
        at_most_once(protocol, state).all(|row| row.truth.arrivals <= 1)
    }),
    (UNKNOWN, |protocol, state| {
        at_most_once(protocol, state).all(|row| {
            !matches!(row.end, Some(End::Failed | End::Expired)) || !row.truth.may_have_arrived
        })
    }),
    (WITHIN_ATTEMPTS, |protocol, state| {
        state.calls().all(|(message, _, _)| {
            let row = &state.rows[message];
            row.end.is_some() || row.attempts < protocol.messages[message].max_attempts
        })
    }),
    (NOT_LOST, Protocol::recovers),
];

const SITUATIONS: [(&str, Condition); 10] = [
    ("a record is late", |_, state| {
        deliveries_without_a_row(state).any(|stage| matches!(stage, Stage::Recording(_)))
    }),
    ("a worker waits with a claim that is over", |_, state| {
        deliveries_without_a_row(state).any(|stage| *stage == Stage::Waiting)
    }),
    ("a claim is lost", |_, state| {
        state.rows.iter().any(|row| row.claimed && row.is_due())
    }),
    ("a claim's response is lost", |_, state| {
        deliveries(state).any(|delivery| delivery.stage == Stage::Orphaned)
    }),
    ("a worker dies during a call", |_, state| {
        !state.orphans.is_empty()
    }),
    ("a message is called twice", |_, state| {
        state.rows.iter().any(|row| row.truth.calls > 1)
    }),
    ("a message ends as sent", |_, state| ends(state, End::Sent)),
    ("a message ends as failed", |_, state| {
        ends(state, End::Failed)
    }),
    ("a message is cancelled", |_, state| {
        ends(state, End::Cancelled)
    }),
    ("every message is final", |_, state| {
        state.rows.iter().all(|row| row.end.is_some())
    }),
];

fn ends(state: &State, end: End) -> bool {
    state.rows.iter().any(|row| row.end == Some(end))
}

fn deliveries(state: &State) -> impl Iterator<Item = &Delivery> {
    state.workers.iter().flat_map(|worker| &worker.deliveries)
}

/// The stages of deliveries whose claim is over or whose row is final.
fn deliveries_without_a_row(state: &State) -> impl Iterator<Item = &Stage> {
    deliveries(state)
        .filter(|delivery| {
            delivery.claim == Claim::Over || state.rows[delivery.message].end.is_some()
        })
        .map(|delivery| &delivery.stage)
}

fn at_most_once<'a>(protocol: &'a Protocol, state: &'a State) -> impl Iterator<Item = &'a Row> {
    let rows = protocol.messages.iter().zip(&state.rows);
    rows.filter(|(message, _)| message.at_most_once)
        .map(|(_, row)| row)
}
