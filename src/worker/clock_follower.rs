//! Reacts to steps of the database's clock: see [`SharedClock`](crate::pace::SharedClock).

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;

use super::Process;
use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::pace::ClockStep;
use crate::telemetry::failure_log::FailureLog;

/// Counts steps of the database's clock.
pub(crate) const CLOCK_STEPS: &str = "signaling_database_clock_steps_total";
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(process: Arc<Process>, last_step: watch::Receiver<Option<ClockStep>>) {
    let following = follow_forever(&process, last_step);
    process.shared.shutdown.run_until_cancelled(following).await;
}

async fn follow_forever(process: &Process, mut last_step: watch::Receiver<Option<ClockStep>>) {
    let steps = counter!(CLOCK_STEPS);
    while last_step.changed().await.is_ok() {
        let Some(step) = *last_step.borrow_and_update() else {
            continue;
        };
        panic_point("clock_follower", 0);
        steps.increment(1);
        log_step(step);
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

fn log_step(step: ClockStep) {
    let (direction, by) = if step.is_back() {
        ("back", step.before.since(step.after))
    } else {
        ("ahead", step.after.since(step.before))
    };
    let by = Duration::from_millis(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    tracing::warn!(
        event = "clock_stepped",
        direction,
        by = %humantime::format_duration(by),
        "the database's clock was set, or this host slept: the worker releases messages that wait for their slots, and expires nothing until the clock was steady for a minute. Check the clocks of the database's hosts (NTP)"
    );
}

/// Corrects the due times of messages that would otherwise wait for as long as the clock was set back. Retries until the
/// database answers.
async fn set_messages_back(lane: &Lane) {
    let shared = &lane.shared;
    let failures = FailureLog::default();
    loop {
        let corrected = shared
            .outbox
            .set_messages_back(&lane.app, shared.timing.lease);
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
            Err(error) => {
                if failures.failed() {
                    tracing::warn!(
                        event = "messages_set_back_failed",
                        app = lane.app,
                        error = database_error_text(&error),
                        "due times can't be corrected after the clock was set back, so messages may wait too long: trying again until the database answers"
                    );
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
