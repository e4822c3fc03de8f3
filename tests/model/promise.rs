//! The promise as properties of the model, and the situations that it has to reach for them to mean anything.

use super::explorer::Property;
use super::protocol::Protocol;
use super::rules::Message;
use super::state::{Breach, Claim, Clock, Delivery, End, Row, Stage, State};

pub(crate) const FINAL: &str = "a final row stays final, with one status";
pub(crate) const ALONE: &str = "no two calls of a message are on at once";
pub(crate) const LEASED: &str = "a call is over before its lease is";
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

/// The promise, and the situations that a protocol's messages and hosts can come into.
pub(crate) fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let any = |is: fn(&Message) -> bool| protocol.messages.iter().any(is);
    let mut properties = promise();
    properties.extend(situations());
    if any(|message| message.at_most_once) {
        properties.push(Property::sometimes(
            "a message ends as unknown",
            |_, state: &State| ends(state, End::Unknown),
        ));
    }
    if any(|message| !message.at_most_once) {
        properties.push(Property::sometimes(
            "a message arrives twice",
            |_, state: &State| state.rows.iter().any(|row| row.truth.arrivals > 1),
        ));
    }
    if any(|message| message.expires_in.is_some()) {
        properties.push(Property::sometimes(
            "a message expires",
            |_, state: &State| ends(state, End::Expired),
        ));
    }
    if protocol.hazards.hosts_sleep {
        properties.push(Property::sometimes(
            "a host sleeps before a slot",
            |_, state: &State| {
                state
                    .workers
                    .iter()
                    .any(|worker| worker.clock == Clock::StoodStill)
            },
        ));
    }
    properties
}

fn promise() -> Vec<Property<Protocol>> {
    vec![
        Property::always(FINAL, |_, state: &State| {
            !state.has(Breach::ChangedAfterItsEnd)
        }),
        Property::always(ALONE, |_, state: &State| {
            (0..state.rows.len()).all(|message| {
                let of_message = |call: &(usize, _, _)| call.0 == message;
                state.calls().filter(of_message).count() <= 1
            })
        }),
        Property::always(LEASED, |_, state: &State| {
            state.calls().all(|(message, claim, left)| {
                claim == Claim::Holds && state.rows[message].due_in >= left
            })
        }),
        Property::always(NOT_AFTER_THE_END, |_, state: &State| {
            !state.has(Breach::CalledAfterItsEnd)
                && state
                    .calls()
                    .all(|(message, _, _)| state.rows[message].end.is_none())
        }),
        Property::always(NOT_AFTER_EXPIRY, |_, state: &State| {
            !state.has(Breach::CalledAfterItsExpiry)
        }),
        Property::always(CANCELLED, |_, state: &State| {
            !state.has(Breach::CancelledWhileCalled)
        }),
        Property::always(EXPLAINED, |_, state: &State| {
            !state.has(Breach::CalledWithoutExplanation)
        }),
        Property::always(TOLD, |_, state: &State| {
            state.rows.iter().all(|row| {
                matches!(row.end, None | Some(End::Sent))
                    || !row.truth.has_unlogged_call
                    || row.tells_of_loss
            })
        }),
        Property::always(SUCCESS, |_, state: &State| {
            state
                .rows
                .iter()
                .all(|row| row.end != Some(End::Sent) || row.truth.arrivals > 0)
        }),
        Property::always(ONCE, |_, state: &State| {
            !state.has(Breach::CalledAgainAtMostOnce)
        }),
        Property::always(ARRIVES_ONCE, |protocol: &Protocol, state: &State| {
            at_most_once(protocol, state).all(|row| row.truth.arrivals <= 1)
        }),
        Property::always(UNKNOWN, |protocol: &Protocol, state: &State| {
            at_most_once(protocol, state).all(|row| {
                !matches!(row.end, Some(End::Failed | End::Expired)) || !row.truth.may_have_arrived
            })
        }),
        Property::always(WITHIN_ATTEMPTS, |protocol: &Protocol, state: &State| {
            state.calls().all(|(message, _, _)| {
                let row = &state.rows[message];
                row.end.is_some() || row.attempts < protocol.messages[message].max_attempts
            })
        }),
        Property::always(NOT_LOST, Protocol::recovers),
    ]
}

fn situations() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a record is late", |_, state: &State| {
            deliveries_without_a_row(state).any(|stage| matches!(stage, Stage::Recording(_)))
        }),
        Property::sometimes(
            "a worker waits with a claim that is over",
            |_, state: &State| {
                deliveries_without_a_row(state).any(|stage| *stage == Stage::Waiting)
            },
        ),
        Property::sometimes("a claim is lost", |_, state: &State| {
            state.rows.iter().any(|row| row.claimed && row.is_due())
        }),
        Property::sometimes("a claim's answer is lost", |_, state: &State| {
            deliveries(state).any(|delivery| delivery.stage == Stage::Unheard)
        }),
        Property::sometimes("a worker dies during a call", |_, state: &State| {
            !state.orphans.is_empty()
        }),
        Property::sometimes("a message is called twice", |_, state: &State| {
            state.rows.iter().any(|row| row.truth.calls > 1)
        }),
        Property::sometimes("a message ends as sent", |_, state: &State| {
            ends(state, End::Sent)
        }),
        Property::sometimes("a message ends as failed", |_, state: &State| {
            ends(state, End::Failed)
        }),
        Property::sometimes("a message is cancelled", |_, state: &State| {
            ends(state, End::Cancelled)
        }),
        Property::sometimes("every message is final", |_, state: &State| {
            state.rows.iter().all(|row| row.end.is_some())
        }),
    ]
}

fn ends(state: &State, end: End) -> bool {
    state.rows.iter().any(|row| row.end == Some(end))
}

fn deliveries(state: &State) -> impl Iterator<Item = &Delivery> {
    state.workers.iter().flat_map(|worker| &worker.deliveries)
}

/// Those whose row has another claim by now, or none, or is final.
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
