//! Acts on steps of the database's clock: see [`SharedClock`](crate::pace::SharedClock).

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::pace::ClockStep;

/// The counter of steps of the database's clock.
pub(crate) const CLOCK_STEPS: &str = "signaling_database_clock_steps_total";
/// The pause before the next try after the database has failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    lanes: Vec<Arc<Lane>>,
    mut last_step: watch::Receiver<Option<ClockStep>>,
    shutdown: CancellationToken,
) {
    let Some(outbox) = lanes.first().map(|lane| Arc::clone(&lane.shared.outbox)) else {
        return;
    };
    let steps = counter!(CLOCK_STEPS);
    let following = async {
        while last_step.changed().await.is_ok() {
            let step = *last_step.borrow_and_update();
            let Some(step) = step else { continue };
            panic_point("clock_follower", 0);
            steps.increment(1);
            log_step(step);
            for lane in &lanes {
                lane.clock_stepped();
            }
            if step.is_back() {
                for lane in &lanes {
                    set_messages_back(&outbox, lane).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(following).await;
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
async fn set_messages_back(outbox: &Outbox, lane: &Lane) {
    let mut has_failed = false;
    loop {
        match outbox
            .set_messages_back(&lane.app, lane.shared.timing.lease)
            .await
        {
            Ok(0) => return,
            Ok(messages) => {
                tracing::info!(
                    event = "messages_set_back",
                    app = lane.app,
                    messages,
                    "the due times of messages are corrected after the clock was set back"
                );
                lane.clock_stepped();
                return;
            }
            Err(error) => {
                if !has_failed {
                    tracing::warn!(
                        event = "messages_set_back_failed",
                        app = lane.app,
                        error = database_error_text(&error),
                        "due times can't be corrected after the clock was set back, so messages may wait too long: trying again until the database answers"
                    );
                }
                has_failed = true;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
