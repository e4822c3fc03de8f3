//! Logs lane state changes once per process, whether this worker caused the change or another one did. Claims and polls
//! show the changes.

use std::time::Duration;

use super::Lane;
use crate::advice;
use crate::outbox::HoldKind;
use crate::pace::DbTime;

/// The state that the log shows.
#[derive(Debug, Default)]
pub(super) struct LoggedState {
    /// A claim or a poll with an earlier time shows an older state.
    as_of: DbTime,
    hold: Option<HoldKind>,
    /// This process wrote or read the reduced rate at this time.
    slowed_at: Option<DbTime>,
}

impl Lane {
    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(crate) fn is_refused(&self) -> bool {
        self.logged.lock().hold == Some(HoldKind::OtherEnvironment)
    }

    pub(super) fn log_refused_lane(&self, environment: Option<&str>, pending: u64) {
        let hold = Some(HoldKind::OtherEnvironment);
        if std::mem::replace(&mut self.logged.lock().hold, hold) != hold {
            tracing::error!(
                event = "lane_refused",
                app = self.app,
                environment,
                pending,
                "the app belongs to {}, and this worker to another one, so this worker sends none of the pending messages. To do: {}",
                advice::environment_name(environment),
                advice::adopt(&self.app)
            );
        }
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
                    hold = kind.as_str(),
                    reason,
                    "lane held: {cause}. Messages wait; one call at a time is tried, and sending resumes when the API responds normally"
                );
            }
            (_, Some(kind)) => tracing::info!(
                event = "lane_paused",
                app,
                hold = kind.as_str(),
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
    pub(super) fn log_rate(&self, at: DbTime, slowed_to_per_s: Option<f64>) {
        let slowed_at = self.logged.lock().slowed_at;
        match (slowed_at, slowed_to_per_s) {
            (None, Some(rate_per_s)) => self.log_slowed(at, rate_per_s, Duration::ZERO),
            (Some(slowed_at), None) if at > slowed_at => {
                self.logged.lock().slowed_at = None;
                tracing::info!(
                    event = "lane_rate_restored",
                    app = self.app,
                    "lane back at its full rate"
                );
            }
            (Some(_), _) | (None, None) => {}
        }
    }

    /// This process cut the rate.
    pub(super) fn log_rate_cut(&self, rate_per_s: f64, retry_after: Duration) {
        tracing::debug!(
            event = "lane_rate_cut",
            app = self.app,
            rate_per_s,
            "a 429 has cut the rate"
        );
        self.log_slowed(self.shared.now(), rate_per_s, retry_after);
    }

    fn log_slowed(&self, at: DbTime, rate_per_s: f64, retry_after: Duration) {
        if self.logged.lock().slowed_at.replace(at).is_some() {
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

    /// Calls of this worker fail, and those of other workers do not.
    pub(super) fn log_stepped_aside(&self, reason: &str) {
        tracing::error!(
            event = "worker_stepped_aside",
            app = self.app,
            reason = without_api_text(reason),
            "this worker leaves the app to other workers, because its own calls fail while messages of other workers are accepted. Check its credentials, AGORA_BASE_URL, AGORA_CA_FILE and its network"
        );
    }

    pub(super) fn log_returned(&self) {
        tracing::info!(
            event = "worker_returned",
            app = self.app,
            "this worker serves the app again"
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
fn without_api_text(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(cause, _)| cause)
}
