//! Reacts to steps of the database's clock: see [`SharedClock`](crate::pace::SharedClock).

use std::sync::Arc;

use metrics::counter;

use super::Process;
use super::panic_point::panic_point;

pub(crate) const CLOCK_STEPS: &str = "signaling_database_clock_steps_total";

pub(super) async fn run(process: Arc<Process>) {
    let counter = counter!(CLOCK_STEPS);
    let mut steps = process.shared.outbox.clock().steps();
    // A panic must not lose a step, so a restarted task handles the last one.
    steps.mark_changed();
    while steps.changed().await.is_ok() {
        let Some(step) = *steps.borrow_and_update() else {
            continue;
        };
        panic_point("clock_follower", 0);
        counter.increment(1);
        tracing::warn!(
            event = "clock_stepped",
            by_ms = (step.after.as_micros() - step.before.as_micros()) / 1_000,
            "the database's clock was set, or this host slept: the worker releases messages that wait for their slots. For a minute, only leases and expiries that ended before the step count as over. Check the clocks of the database's hosts (NTP)"
        );
        for lane in process.lanes.values() {
            lane.clock_stepped();
        }
        if step.after < step.before {
            for lane in process.lanes.values() {
                lane.set_messages_back().await;
            }
        }
    }
}
