//! Known counterexamples that the rules do not prevent. A change of the code that prevents one inverts its test.

use super::broken::breaks;
use super::promise;
use super::protocol::Protocol;
use super::rules::{Message, Rules};

/// Microseconds pass between the last check of the clock and the first byte, and the API has no fence.
#[test]
fn a_worker_suspended_between_permit_and_send_may_overlap_with_another() {
    let mut protocol = Protocol::of(2, 1, &[Message::AT_LEAST_ONCE]);
    protocol.rules = Rules::KEPT;
    protocol.hazards.workers_stop_before_the_wire = true;
    breaks(promise::ALONE, &protocol);
}
