//! Logs lane state changes once per process, whether this worker caused the change or read it in a claim.

use std::time::Duration;

use crate::advice;
use crate::outbox::HoldKind;
use crate::pace::DbTime;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;

/// An API that allows less than the limit answers 429 for ever, so a slowed lane is logged again after this time.
const LOG_SLOWED_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct LaneLog {
    app: String,
    /// The time of the logged state. A claim with an earlier time shows an older state.
    as_of: DbTime,
    hold: Option<HoldKind>,
    /// The lane is slow, and the log shows it.
    slowed: FailureLog,
    slowed_throttle: LogThrottle,
}

impl LaneLog {
    pub(crate) fn new(app: String) -> Self {
        Self {
            app,
            as_of: DbTime::from_micros(0),
            hold: None,
            slowed: FailureLog::default(),
            slowed_throttle: LogThrottle::with_interval(LOG_SLOWED_EVERY),
        }
    }

    /// Logs the hold that a claim or a poll shows.
    pub(crate) fn observe_hold(&mut self, at: DbTime, hold: Option<HoldKind>) {
        // The claim loop opens a lane of another environment, and logs how many messages are pending.
        let is_refused = hold == Some(HoldKind::OtherEnvironment);
        if at > self.as_of && hold != self.hold && !is_refused {
            let reason = "reported by another worker: see `worker status`";
            self.hold_changed(at, hold, reason);
        }
    }

    /// Logs the rate that a claim shows. None: the full rate.
    pub(crate) fn observe_rate(&mut self, at: DbTime, slowed_to_per_s: Option<f64>) {
        if at <= self.as_of {
            return;
        }
        match slowed_to_per_s {
            Some(rate_per_s) if self.slowed.failed() => {
                // Begins the interval: the next 429 is no news.
                self.slowed_throttle.admit();
                self.log_slowed(rate_per_s, Duration::ZERO);
            }
            None if self.slowed.succeeded() => {
                tracing::info!(
                    event = "lane_rate_restored",
                    app = self.app,
                    "lane back at its full rate"
                );
            }
            Some(_) | None => {}
        }
    }

    /// This process cut the rate.
    pub(crate) fn slowed(&mut self, at: DbTime, rate_per_s: f64, retry_after: Duration) {
        self.as_of = at;
        tracing::debug!(
            event = "lane_rate_cut",
            app = self.app,
            rate_per_s,
            "a 429 has cut the rate"
        );
        let is_due = self.slowed_throttle.admit().is_some();
        if self.slowed.failed() || is_due {
            self.log_slowed(rate_per_s, retry_after);
        }
    }

    fn log_slowed(&self, rate_per_s: f64, retry_after: Duration) {
        tracing::warn!(
            event = "lane_throttled",
            app = self.app,
            rate_per_s = format!("{rate_per_s:.1}"),
            retry_after = %humantime::format_duration(retry_after),
            "lane slowed: the API answers 429; the rate climbs back by itself. If this lasts, another program uses the same app ID, or WORKER_RATE is above the limit"
        );
    }

    /// Logs that the lane belongs to another environment. Before the first reading of the database's clock, `at` is in 1970,
    /// so later changes are still logged.
    pub(crate) fn refused(&mut self, at: DbTime, environment: Option<&str>, pending: u64) {
        let was_refused = self.is_refused();
        self.hold = Some(HoldKind::OtherEnvironment);
        self.as_of = self.as_of.max(at);
        if !was_refused {
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

    pub(crate) fn is_refused(&self) -> bool {
        self.hold == Some(HoldKind::OtherEnvironment)
    }

    pub(crate) fn hold_changed(&mut self, at: DbTime, hold: Option<HoldKind>, reason: &str) {
        let app = &self.app;
        let before = std::mem::replace(&mut self.hold, hold);
        self.as_of = at;
        match (before, hold) {
            (_, Some(kind @ (HoldKind::Unavailable | HoldKind::Unauthorized))) => {
                let cause = if kind == HoldKind::Unavailable {
                    "the API fails or can't be reached"
                } else {
                    "the app can't sign in. Check its key and secret, token or certificate"
                };
                tracing::warn!(
                    event = "lane_held",
                    app,
                    hold = kind.as_str(),
                    reason,
                    "lane held: {cause}. Messages wait; one call at a time is tried, and sending resumes when the API responds normally"
                );
            }
            (_, Some(HoldKind::Paused)) => tracing::info!(
                event = "lane_paused",
                app,
                hold = HoldKind::Paused.as_str(),
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
            (Some(_), None) => {
                tracing::info!(event = "lane_released", app, "lane released: sending again");
            }
            // `refused` logs another environment.
            (_, Some(HoldKind::OtherEnvironment)) | (None, None) => {}
        }
    }
}

/// Calls of this worker fail, and those of other workers do not.
pub(crate) fn log_stepped_aside(app: &str, reason: &str) {
    tracing::error!(
        event = "worker_stepped_aside",
        app,
        reason = without_api_text(reason),
        "this worker leaves the app to other workers, because its own calls fail while messages of other workers are accepted. Check its credentials, AGORA_BASE_URL, AGORA_CA_FILE and its network"
    );
}

pub(crate) fn log_returned(app: &str) {
    tracing::info!(
        event = "worker_returned",
        app,
        "this worker serves the app again"
    );
}

/// The text of the API comes after the colon. It may repeat the message, so it must not reach the log.
pub(crate) fn without_api_text(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(cause, _)| cause)
}
