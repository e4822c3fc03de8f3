//! The promise is true in every reachable state.

use super::explorer::{Failure, explore};
use super::protocol::Protocol;
use super::rules::Message;

const AT_LEAST_ONCE: Message = Message::AT_LEAST_ONCE;
const AT_MOST_ONCE: Message = Message::AT_MOST_ONCE;

/// Explores every state. A low number of states would show a model that excludes too much.
pub(crate) fn holds(what: &str, protocol: &Protocol, least_states: usize) {
    let found = explore(protocol);
    let (states, transitions, depth) = (found.states, found.transitions, found.depth);
    println!("{what}: {states} states, {transitions} transitions, depth {depth}");
    let failures: Vec<_> = found.failures.iter().map(Failure::to_string).collect();
    assert!(failures.is_empty(), "{what}: {}", failures.join("\n"));
    assert!(states >= least_states, "{what}: only {states} states");
}

#[test]
fn the_promise_holds_for_three_workers_and_a_message_that_may_arrive_twice() {
    let protocol = Protocol::of(3, 1, &[AT_LEAST_ONCE]);
    holds("three workers, at-least-once", &protocol, 50_000);
}

#[test]
fn the_promise_holds_for_three_workers_and_a_message_that_may_arrive_once() {
    let protocol = Protocol::of(3, 1, &[AT_MOST_ONCE]);
    holds("three workers, at-most-once", &protocol, 2_000);
}

#[test]
fn the_promise_holds_for_messages_that_expire() {
    let protocol = Protocol::of(3, 1, &[AT_LEAST_ONCE.expiring_in(4)]);
    holds("three workers, at-least-once, expiring", &protocol, 10_000);
    let protocol = Protocol::of(3, 1, &[AT_MOST_ONCE.expiring_in(4)]);
    holds("three workers, at-most-once, expiring", &protocol, 1_000);
}

/// A short lease keeps the number of states small. The effect of one message on another does not depend on the lease.
#[test]
fn the_promise_holds_for_two_workers_with_two_messages() {
    let twice_failed = |message| Message {
        max_attempts: 2,
        ..message
    };
    let messages = [AT_LEAST_ONCE, AT_MOST_ONCE].map(twice_failed);
    let protocol = Protocol {
        lease: 2,
        ..Protocol::of(2, 1, &messages)
    };
    holds("two workers, two messages", &protocol, 200_000);
}

#[test]
fn the_promise_holds_where_a_worker_claims_a_message_whose_record_it_still_has() {
    let protocol = Protocol::of(1, 3, &[AT_LEAST_ONCE]);
    holds("one worker with room for three", &protocol, 50_000);
    let protocol = Protocol::of(2, 2, &[AT_MOST_ONCE]);
    holds("two with room for two, at-most-once", &protocol, 5_000);
    let protocol = Protocol::of(2, 2, &[AT_LEAST_ONCE.expiring_in(3)]);
    holds("two workers with room for two, expiring", &protocol, 20_000);
}

#[test]
fn the_promise_holds_for_calls_that_last_longer() {
    let protocol = Protocol {
        lease: 5,
        request_timeout: 3,
        ..Protocol::of(2, 1, &[AT_LEAST_ONCE])
    };
    holds("a lease of five and calls of three", &protocol, 10_000);
}

#[test]
fn the_promise_holds_on_hosts_that_sleep() {
    let protocol = Protocol::of_hosts_that_sleep(2, &[AT_LEAST_ONCE]);
    holds("hosts that sleep, at-least-once", &protocol, 20_000);
    let protocol = Protocol::of_hosts_that_sleep(2, &[AT_MOST_ONCE]);
    holds("hosts that sleep, at-most-once", &protocol, 1_000);
}
