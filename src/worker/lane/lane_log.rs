//! Logs lane state changes once per process, whether this worker caused the change or read it in a claim.

use std::time::{Duration, Instant};

use crate::advice;
use crate::outbox::HoldKind;
use crate::pace::DbTime;

/// A lane that stays slow is told of so often: an API that allows less than the limit answers 429 for ever.
const LOG_THROTTLED_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(in crate::worker) struct LaneLog {
    /// When that was so: what a claim saw before is old.
    as_of: DbTime,
    hold: Option<HoldKind>,
    throttled_logged_at: Option<Instant>,
}

impl Default for LaneLog {
    fn default() -> Self {
        Self {
            as_of: DbTime::from_micros(0),
            hold: None,
            throttled_logged_at: None,
        }
    }
}

impl LaneLog {
    /// A claim or a look has seen the lane.
    pub(in crate::worker) fn seen(&mut self, app: &str, at: DbTime, hold: Option<HoldKind>) {
        // The claim loop opens a lane of another environment, and logs how many messages are pending.
        let is_opened_first = hold == Some(HoldKind::OtherEnvironment);
        if at > self.as_of && hold != self.hold && !is_opened_first {
            self.log(
                app,
                at,
                hold,
                "reported by another worker: see `worker status`",
            );
        }
    }

    /// Logs that the lane belongs to another environment. Before the first reading of the database's clock, `at` is in
    /// 1970, so later changes are still logged.
    pub(in crate::worker) fn refused(
        &mut self,
        app: &str,
        at: DbTime,
        environment: Option<&str>,
        pending: u64,
    ) {
        let before = self.hold.replace(HoldKind::OtherEnvironment);
        self.as_of = self.as_of.max(at);
        if before != Some(HoldKind::OtherEnvironment) {
            tracing::error!(
                event = "lane_refused",
                app,
                environment,
                pending,
                "the app belongs to {}, and this worker to another one, so this worker sends none of the pending messages. To do: {}",
                advice::environment_name(environment),
                advice::adopt(app)
            );
        }
    }

    pub(in crate::worker) fn is_refused(&self) -> bool {
        self.hold == Some(HoldKind::OtherEnvironment)
    }

    /// A claim has seen at which rate the lane is, if that is below its full one.
    pub(in crate::worker) fn seen_rate(
        &mut self,
        app: &str,
        at: DbTime,
        slowed_to_per_s: Option<f64>,
    ) {
        if at <= self.as_of {
            return;
        }
        match slowed_to_per_s {
            Some(rate_per_s) if self.throttled_logged_at.is_none() => {
                self.log_throttled(app, rate_per_s, Duration::ZERO);
            }
            None if self.throttled_logged_at.take().is_some() => {
                tracing::info!(
                    event = "lane_rate_restored",
                    app,
                    "lane back at its full rate"
                );
            }
            Some(_) | None => {}
        }
    }

    /// This process has held the lane.
    pub(in crate::worker) fn held(&mut self, app: &str, at: DbTime, kind: HoldKind, reason: &str) {
        self.log(app, at, Some(kind), reason);
    }

    /// This process has released the lane.
    pub(in crate::worker) fn released(&mut self, app: &str, at: DbTime) {
        self.log(app, at, None, "");
    }

    /// This process has slowed the lane.
    pub(in crate::worker) fn slowed(
        &mut self,
        app: &str,
        at: DbTime,
        rate_per_s: f64,
        retry_after: Duration,
    ) {
        self.as_of = at;
        tracing::debug!(
            event = "lane_rate_cut",
            app,
            rate_per_s,
            "a 429 has cut the rate"
        );
        if self
            .throttled_logged_at
            .is_none_or(|logged_at| logged_at.elapsed() >= LOG_THROTTLED_EVERY)
        {
            self.log_throttled(app, rate_per_s, retry_after);
        }
    }

    fn log_throttled(&mut self, app: &str, rate_per_s: f64, retry_after: Duration) {
        self.throttled_logged_at = Some(Instant::now());
        tracing::warn!(
            event = "lane_throttled",
            app,
            rate_per_s = format!("{rate_per_s:.1}"),
            retry_after = %humantime::format_duration(retry_after),
            "lane slowed: the API answers 429; the rate climbs back by itself. If this lasts, another program uses the same app ID, or WORKER_RATE is above the limit"
        );
    }

    fn log(&mut self, app: &str, at: DbTime, hold: Option<HoldKind>, reason: &str) {
        let before = std::mem::replace(&mut self.hold, hold);
        self.as_of = at;
        match (before, hold) {
            (_, Some(HoldKind::Unavailable)) => tracing::warn!(
                event = "lane_held",
                app,
                hold = HoldKind::Unavailable.as_str(),
                reason,
                "lane held: the API fails or can't be reached. Messages wait; one call at a time is tried, and sending resumes when the API responds normally"
            ),
            (_, Some(HoldKind::Unauthorized)) => tracing::warn!(
                event = "lane_held",
                app,
                hold = HoldKind::Unauthorized.as_str(),
                reason,
                "lane held: the app can't sign in. Check its key and secret, token or certificate. Messages wait; one call at a time is tried, and sending resumes when the API responds normally"
            ),
            (_, Some(HoldKind::Paused)) => tracing::info!(
                event = "lane_paused",
                app,
                hold = HoldKind::Paused.as_str(),
                "lane paused by a person: no call starts until `worker resume`. `worker status` says who and why"
            ),
            (Some(HoldKind::OtherEnvironment), None) => {
                tracing::info!(
                    event = "lane_adopted",
                    app,
                    "the app belongs to this worker's environment now: sending"
                );
            }
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

/// This worker's calls of the app fail, and those of others do not.
pub(in crate::worker) fn log_stepped_aside(app: &str, reason: &str) {
    // The API's own text may repeat the message.
    let reason = reason.split(": ").next().unwrap_or_default();
    tracing::error!(
        event = "worker_stepped_aside",
        app,
        reason,
        "this worker leaves the app to the others, because its own calls fail while messages of other workers are accepted. Check its credentials, AGORA_BASE_URL, AGORA_CA_FILE and its network"
    );
}

/// This worker serves the app again.
pub(in crate::worker) fn log_returned(app: &str) {
    tracing::info!(
        event = "worker_returned",
        app,
        "this worker serves the app again"
    );
}
