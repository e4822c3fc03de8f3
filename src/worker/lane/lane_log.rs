//! Logs each change of the lane's state once, whether this worker caused the change or read it in a claim or a poll.

use std::time::Duration;

use parking_lot::Mutex;

use crate::outbox::HoldKind;
use crate::pace::DbTime;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;

/// A claim or poll whose time lies further back is no late answer: the database's clock was set back. Without this bound, the
/// worker would log no hold until the clock reaches its old time.
const OLDEST_ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct LaneLog {
    app: String,
    state: Mutex<LoggedState>,
    throttled: FailureLog,
    refused: LogThrottle,
}

#[derive(Debug, Default)]
struct LoggedState {
    /// A claim or a poll with an earlier time shows an older state.
    as_of: DbTime,
    hold: Option<HoldKind>,
}

impl LaneLog {
    pub(super) fn new(app: &str) -> Self {
        Self {
            app: app.to_owned(),
            state: Mutex::default(),
            throttled: FailureLog::default(),
            refused: LogThrottle::default(),
        }
    }

    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(super) fn is_of_other_environment(&self) -> bool {
        self.state.lock().hold == Some(HoldKind::OtherEnvironment)
    }

    /// Notes that the app belongs to another environment. True if this is a change.
    pub(super) fn other_environment(&self) -> bool {
        let hold = Some(HoldKind::OtherEnvironment);
        std::mem::replace(&mut self.state.lock().hold, hold) != hold
    }

    /// Logs the hold that a claim or a poll shows, if it is a change. `reason` is why this worker itself doubted the API, if it did.
    /// False if a later claim or poll has shown the state already.
    pub(super) fn hold(&self, at: DbTime, hold: Option<HoldKind>, reason: &str) -> bool {
        let mut logged = self.state.lock();
        if at <= logged.as_of && logged.as_of.since(at) < OLDEST_ANSWER {
            return false;
        }
        logged.as_of = at;
        // `Lane::open` logs another environment.
        if hold == Some(HoldKind::OtherEnvironment) {
            return true;
        }
        let app = &self.app;
        let before = std::mem::replace(&mut logged.hold, hold);
        match hold {
            _ if before == hold => {}
            Some(kind @ (HoldKind::Unavailable | HoldKind::Unauthorized)) => {
                let cause = if kind == HoldKind::Unauthorized {
                    "refuses the credentials. Check the app's key and secret, token or certificate"
                } else {
                    "fails or can't be reached"
                };
                let reason = match without_api_text(reason) {
                    "" => "reported by another worker: see `worker status`",
                    reason => reason,
                };
                tracing::warn!(
                    event = "lane_held",
                    app,
                    hold = kind.into_str(),
                    reason,
                    "lane held: the API {cause}. Messages wait; the worker tries one call at a time, and sends again when the API responds normally"
                );
            }
            Some(HoldKind::Paused | HoldKind::OtherEnvironment) => tracing::info!(
                event = "lane_paused",
                app,
                "lane paused by an operator: no call starts until `worker resume`. `worker status` shows the operator and the reason"
            ),
            None => tracing::info!(
                event = "lane_released",
                app,
                hold = before.map(<&str>::from),
                "lane released: sending again"
            ),
        }
        true
    }

    /// Logs the lane's rate, if it is a change. None: the full rate.
    pub(super) fn rate(&self, throttled_per_s: Option<f64>, retry_after: Duration) {
        match throttled_per_s {
            Some(rate_per_s) if self.throttled.failed() => tracing::warn!(
                event = "lane_throttled",
                app = self.app,
                rate_per_s = format!("{rate_per_s:.1}"),
                retry_after = %humantime::format_duration(retry_after),
                "lane throttled: the API answers 429; the rate climbs back by itself. If this lasts, another program uses the same app ID, or WORKER_RATE is above the limit"
            ),
            None if self.throttled.succeeded() => tracing::info!(
                event = "lane_rate_restored",
                app = self.app,
                "lane back at its full rate"
            ),
            Some(_) | None => {}
        }
    }

    /// Logs that a trigger or a constraint keeps messages from being claimed or ended.
    pub(super) fn refused(&self, messages: usize) {
        if messages > 0
            && let Some(suppressed) = self.refused.admit()
        {
            tracing::error!(
                event = "messages_refused",
                app = self.app,
                messages,
                suppressed,
                "a trigger or a constraint in the database refuses changes of these messages or takes seconds for each, so they are not sent; other messages are. signaling.refused lists the messages, and `\\d signaling.outbox` in psql the triggers and constraints. Correct the trigger or the constraint, and `worker resume` tries the messages at once"
            );
        }
    }
}

/// Removes the API's text after the colon, because that text may repeat the message.
pub(super) fn without_api_text(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(cause, _)| cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_claim_shows_no_state_unless_the_clock_was_set() {
        let log = LaneLog::new("default");
        let at = DbTime::from_micros(3_600_000_000);
        assert!(log.hold(at, Some(HoldKind::Unavailable), ""));
        assert!(!log.hold(at - Duration::from_secs(4), None, ""));
        assert!(log.hold(at - Duration::from_secs(60), None, ""));
    }
}
