//! What the rules do not cover: the checker finds it, and it is known. A change of the code that covers one of these
//! turns its test around.

use crate::broken::breaks;
use crate::holds::holds;
use crate::promise;
use crate::protocol::Protocol;
use crate::rules::{Hazards, Message, Rules};

fn hosts_that_sleep_at_any_time() -> Protocol {
    let sleeping = Protocol::of_hosts_that_sleep(2, &[Message::AT_LEAST_ONCE]);
    let hazards = Hazards {
        hosts_sleep_while_the_clock_is_read: true,
        ..sleeping.hazards
    };
    Protocol {
        hazards,
        ..sleeping
    }
}

/// Between the database's look at its clock and the arrival of that look lie milliseconds. A reading that was on its
/// way while the host slept is as old as the sleep was long, and both clocks of the host agree since.
#[test]
fn a_host_that_sleeps_between_a_claim_and_its_answer_may_call_beside_another_worker() {
    breaks(promise::ALONE, hosts_that_sleep_at_any_time());
}

#[test]
fn a_standstill_that_counts_from_the_asking_would_always_be_noticed() {
    let protocol = hosts_that_sleep_at_any_time();
    let rules = Rules {
        standstill_counts_from_the_asking: true,
        ..protocol.rules
    };
    holds(
        "hosts that sleep at any time",
        Protocol { rules, ..protocol },
        20_000,
    );
}

/// Between the last look at the clock and the first byte lie microseconds, and the API knows no fence.
#[test]
fn a_worker_that_stops_between_its_permit_and_the_wire_may_call_beside_another_worker() {
    let protocol = Protocol::of_hosts_that_sleep(2, &[Message::AT_LEAST_ONCE]);
    let hazards = Hazards {
        workers_stop_before_the_wire: true,
        ..Hazards::default()
    };
    breaks(
        promise::ALONE,
        Protocol {
            hazards,
            ..protocol
        },
    );
}
