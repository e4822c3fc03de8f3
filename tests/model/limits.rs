//! What the rules do not cover: the checker finds it, and it is known. A change of the code that covers it turns its
//! test around.

use super::broken::breaks;
use super::promise;
use super::protocol::Protocol;
use super::rules::{Hazards, Message};

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
        &Protocol {
            hazards,
            ..protocol
        },
    );
}
