//! Without any one of the rules, the checker finds a counterexample. So every property of the promise can fail.

use super::explorer::counterexample;
use super::promise;
use super::protocol::Protocol;
use super::rules::{Message, Rules};

const AT_LEAST_ONCE: Message = Message::AT_LEAST_ONCE;
const AT_MOST_ONCE: Message = Message::AT_MOST_ONCE;

/// Explores until a property is violated, and prints the shortest path there. `worker` in an action is the index in the
/// sorted state before that action, so one process can have another index in the next action.
pub(crate) fn breaks(property: &'static str, protocol: &Protocol) {
    match counterexample(protocol, property) {
        Some(violation) => println!("{violation}"),
        None => panic!("no counterexample: {property}"),
    }
}

/// Explores two workers and one message without a rule, and expects a violation of each property.
fn breaks_without(rule: fn(&mut Rules), message: Message, properties: &[&'static str]) {
    let mut protocol = Protocol::of(2, 1, &[message]);
    rule(&mut protocol.rules);
    for property in properties {
        breaks(property, &protocol);
    }
}

#[test]
fn without_the_claim_in_the_record_two_workers_call_at_once() {
    let rule: fn(&mut Rules) = |rules| rules.record_names_its_claim = false;
    let mut three_workers = Protocol::of(3, 1, &[AT_LEAST_ONCE]);
    rule(&mut three_workers.rules);
    breaks(promise::ALONE, &three_workers);
    breaks_without(rule, AT_LEAST_ONCE, &[promise::NOT_AFTER_THE_END]);
}

#[test]
fn without_a_check_of_the_status_a_late_record_changes_a_final_row() {
    let rule = |rules: &mut Rules| rules.record_wants_a_pending_row = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::FINAL]);
}

#[test]
fn without_a_check_of_the_lease_two_workers_call_at_once() {
    let rule: fn(&mut Rules) = |rules| rules.permit_checks_the_lease = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::ALONE, promise::LEASED]);
    breaks_without(rule, AT_MOST_ONCE, &[promise::NOT_AFTER_THE_END]);
}

#[test]
fn a_lease_that_is_counted_from_the_response_lets_two_workers_call_at_once() {
    let rule = |rules: &mut Rules| rules.lease_counts_from_the_request = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::ALONE]);
}

#[test]
fn on_hosts_that_sleep_the_lease_alone_does_not_keep_two_workers_apart() {
    let rules: [fn(&mut Rules); 3] = [
        |rules| rules.permit_checks_the_clock = false,
        |rules| rules.permit_checks_the_slot = false,
        // A reading that was in flight while the host slept is as old as the sleep, and both clocks of the host agree.
        |rules| rules.standstill_counts_from_the_request = false,
    ];
    for rule in rules {
        let mut sleeping = Protocol::of_hosts_that_sleep(2, &[AT_LEAST_ONCE]);
        rule(&mut sleeping.rules);
        breaks(promise::ALONE, &sleeping);
    }
}

#[test]
fn lost_rows_that_are_claimed_again_whatever_they_promise_arrive_twice() {
    let rule: fn(&mut Rules) = |rules| rules.claim_ends_lost_at_most_once = false;
    breaks_without(rule, AT_MOST_ONCE, &[promise::ONCE, promise::ARRIVES_ONCE]);
}

#[test]
fn ambiguous_calls_that_are_repeated_whatever_the_row_promises_arrive_twice() {
    let rule: fn(&mut Rules) = |rules| rules.ambiguity_ends_at_most_once = false;
    breaks_without(
        rule,
        AT_MOST_ONCE,
        &[promise::ONCE, promise::ARRIVES_ONCE, promise::UNKNOWN],
    );
}

#[test]
fn without_an_entry_for_lost_claims_a_second_call_has_no_explanation() {
    let rule = |rules: &mut Rules| rules.claim_logs_lost = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::EXPLAINED]);
}

#[test]
fn lost_rows_that_are_claimed_without_end_are_called_more_often_than_allowed() {
    let rule = |rules: &mut Rules| rules.claim_ends_lost_last_attempts = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::WITHIN_ATTEMPTS]);
}

#[test]
fn without_a_check_of_the_expiry_messages_are_called_too_late() {
    let rule = |rules: &mut Rules| rules.expiry_is_checked = false;
    let expiring = AT_LEAST_ONCE.expiring_in(2);
    breaks_without(rule, expiring, &[promise::NOT_AFTER_EXPIRY]);
}

#[test]
fn a_cancellation_that_ignores_the_claim_cancels_what_is_being_called() {
    let rule: fn(&mut Rules) = |rules| rules.cancel_respects_claims = false;
    breaks_without(
        rule,
        AT_LEAST_ONCE,
        &[promise::CANCELLED, promise::NOT_AFTER_THE_END],
    );
}

#[test]
fn an_expiry_that_ignores_the_claim_ends_what_is_being_called() {
    let mut long_calls = Protocol {
        lease: 4,
        request_timeout: 2,
        ..Protocol::of(2, 1, &[AT_LEAST_ONCE.expiring_in(1)])
    };
    long_calls.rules.expire_respects_claims = false;
    breaks(promise::NOT_AFTER_THE_END, &long_calls);
}

#[test]
fn a_lost_row_that_ends_without_a_reason_hides_a_possible_arrival() {
    let rule = |rules: &mut Rules| rules.ends_tell_of_loss = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::TOLD]);
}

#[test]
fn an_ambiguous_call_that_counts_as_a_success_claims_what_did_not_happen() {
    let rule = |rules: &mut Rules| rules.success_needs_a_response = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::SUCCESS]);
}

#[test]
fn without_an_end_of_leases_a_message_is_lost_with_its_worker() {
    let rule = |rules: &mut Rules| rules.lost_rows_are_due = false;
    breaks_without(rule, AT_LEAST_ONCE, &[promise::NOT_LOST]);
}
