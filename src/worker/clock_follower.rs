//! Reacts to steps of the database's clock: see [`SharedClock`](crate::pace::SharedClock).

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;

use super::Process;
use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::telemetry::failure_log::FailureLog;

/// Counts steps of the database's clock.
pub(crate) const CLOCK_STEPS: &str = "signaling_database_clock_steps_total";
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
            "the database's clock was set, or this host slept: the worker releases messages that wait for their slots, and expires nothing until the clock was steady for a minute. Check the clocks of the database's hosts (NTP)"
        );
        for lane in &process.lanes {
            lane.clock_stepped();
        }
        if step.is_back() {
            for lane in &process.lanes {
                set_messages_back(lane).await;
            }
        }
    }
}

/// Corrects the due times of messages that would otherwise wait for as long as the clock was set back.
async fn set_messages_back(lane: &Lane) {
    let failures = FailureLog::default();
    loop {
        let lease = lane.shared.timing.lease();
        let corrected = lane.shared.outbox.set_messages_back(&lane.app, lease);
        match corrected.await {
            Ok(0) => return,
            Ok(messages) => {
                tracing::info!(
                    event = "messages_set_back",
                    app = lane.app,
                    messages,
                    "the due times of messages are corrected after the clock was set back"
                );
                return lane.clock_stepped();
            }
            Err(error) if failures.failed() => tracing::warn!(
                event = "messages_set_back_failed",
                app = lane.app,
                error = database_error_text(&error),
                "due times can't be corrected after the clock was set back, so messages may wait too long: trying again until the database answers"
            ),
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
