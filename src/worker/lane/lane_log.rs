//! Logs lane state changes once per process, whether this worker caused the change or another one did. Claims and polls
//! show the changes.

use std::time::Duration;

use super::Lane;
use crate::outbox::HoldKind;
use crate::pace::DbTime;

#[derive(Debug, Default)]
pub(super) struct LoggedState {
    /// A claim or a poll with an earlier time shows an older state.
    as_of: DbTime,
    pub(super) hold: Option<HoldKind>,
}

impl Lane {
    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(crate) fn is_refused(&self) -> bool {
        self.logged.lock().hold == Some(HoldKind::OtherEnvironment)
    }

    /// Logs the hold that a claim or a poll shows, if it is a change.
    pub(super) fn log_hold(&self, at: DbTime, hold: Option<HoldKind>) {
        let mut logged = self.logged.lock();
        // `open` logs another environment.
        if at <= logged.as_of || hold == Some(HoldKind::OtherEnvironment) {
            return;
        }
        logged.as_of = at;
        let app = &self.app;
        let before = std::mem::replace(&mut logged.hold, hold);
        match (before, hold) {
            _ if before == hold => {}
            (_, Some(kind @ (HoldKind::Unavailable | HoldKind::Unauthorized))) => {
                let cause = if kind == HoldKind::Unavailable {
                    "the API fails or can't be reached"
                } else {
                    "the app can't sign in. Check its key and secret, token or certificate"
                };
                let reason = self.breaker.lock().reason.clone();
                let reason = match without_api_text(&reason) {
                    "" => "reported by another worker: see `worker status`",
                    reason => reason,
                };
                tracing::warn!(
                    event = "lane_held",
                    app,
                    hold = kind.into_str(),
                    reason,
                    "lane held: {cause}. Messages wait; one call at a time is tried, and sending resumes when the API responds normally"
                );
            }
            (_, Some(HoldKind::Unknown)) => tracing::warn!(
                event = "lane_held",
                app,
                hold = HoldKind::Unknown.into_str(),
                "lane held for a reason that this version of the worker does not know: update the worker"
            ),
            (_, Some(kind)) => tracing::info!(
                event = "lane_paused",
                app,
                hold = kind.into_str(),
                "lane paused by an operator: no call starts until `worker resume`. `worker status` shows the operator and the reason"
            ),
            (Some(HoldKind::OtherEnvironment), None) => tracing::info!(
                event = "lane_adopted",
                app,
                "the app belongs to this worker's environment now: sending"
            ),
            (Some(HoldKind::Paused), None) => {
                tracing::info!(event = "lane_resumed", app, "lane resumed: sending again");
            }
            (_, None) => {
                tracing::info!(event = "lane_released", app, "lane released: sending again");
            }
        }
    }

    /// Logs the rate that a claim shows, if it is a change. None: the full rate.
    pub(super) fn log_rate(&self, slowed_to_per_s: Option<f64>) {
        match slowed_to_per_s {
            Some(rate_per_s) => self.log_slowed(rate_per_s, Duration::ZERO),
            None if self.slowed.succeeded() => tracing::info!(
                event = "lane_rate_restored",
                app = self.app,
                "lane back at its full rate"
            ),
            None => {}
        }
    }

    pub(super) fn log_slowed(&self, rate_per_s: f64, retry_after: Duration) {
        if !self.slowed.failed() {
            return;
        }
        tracing::warn!(
            event = "lane_throttled",
            app = self.app,
            rate_per_s = format!("{rate_per_s:.1}"),
            retry_after = %humantime::format_duration(retry_after),
            "lane slowed: the API answers 429; the rate climbs back by itself. If this lasts, another program uses the same app ID, or WORKER_RATE is above the limit"
        );
    }

    /// Logs that a trigger or a constraint keeps messages from being claimed or ended.
    pub(in crate::worker) fn log_refused(&self, messages: usize) {
        if messages > 0
            && let Some(suppressed) = self.refused.admit()
        {
            tracing::error!(
                event = "messages_refused",
                app = self.app,
                messages,
                suppressed,
                "a trigger or a constraint in the database refuses changes of these messages or takes seconds for each, so they are not sent; other messages are. `worker check` names the trigger or the constraint, and signaling.refused lists the messages. Correct it, and `worker resume` tries the messages at once"
            );
        }
    }
}

/// The text of the API comes after the colon. It may repeat the message, so it must not reach the log.
pub(super) fn without_api_text(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(cause, _)| cause)
}
