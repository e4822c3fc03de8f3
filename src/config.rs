//! Settings, checked when they are built. The errors name the variable or flag to change.

mod app;
mod file;

use std::str::FromStr;
use std::time::Duration;

use crate::pace::{HORIZON, TOLERANCE};
use crate::retry::RetryPolicy;
use crate::telemetry::traces::Traces;

pub(crate) use app::{AppConfig, RawApp, apps};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use file::parse_apps;
pub(crate) use file::read_apps;

#[derive(Debug)]
pub(crate) struct WorkerConfig {
    pub(crate) apps: Vec<AppConfig>,
    pub(crate) name: String,
    pub(crate) host: String,
    /// A worker refuses messages of another environment, as in a copied database.
    pub(crate) environment: Option<String>,
    pub(crate) timing: Timing,
    pub(crate) retry: RetryPolicy,
    /// How long a shutdown waits for calls in flight and their records.
    pub(crate) drain_timeout: Duration,
    /// The age at which finished messages are deleted. None keeps all messages.
    pub(crate) retention: Option<Duration>,
    pub(crate) traces: Option<Traces>,
}

/// Times that depend on one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) lease: Duration,
    /// Longest time from the start of a call to the end of its response.
    pub(crate) request_timeout: Duration,
    /// Longest time for a TCP and TLS handshake.
    pub(crate) connect_timeout: Duration,
    /// Maximum age at which a connection to the API is reused.
    pub(crate) connection_max_age: Duration,
    /// How often an idle lane looks for due messages without a wakeup.
    pub(crate) poll_interval: Duration,
}

/// A mistake in the command line or the settings, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The errors of the standard library do not say how to write a number.
pub(crate) fn parse_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse()
        .map_err(|_| "it is not a number, or not a whole one: write it like 200")
}

/// Time to record the outcome within the lease.
const LEASE_MARGIN: Duration = Duration::from_millis(840);

impl Timing {
    /// # Errors
    /// If a call could outlast its lease, or a time is zero.
    pub(crate) fn new(
        lease: Option<Duration>,
        request_timeout: Duration,
        connect_timeout: Duration,
        connection_max_age: Duration,
        poll_interval: Duration,
    ) -> Result<Self, UsageError> {
        for (name, time) in [
            ("WORKER_REQUEST_TIMEOUT", request_timeout),
            ("WORKER_CONNECT_TIMEOUT", connect_timeout),
            ("WORKER_CONNECTION_MAX_AGE", connection_max_age),
            ("WORKER_POLL_INTERVAL", poll_interval),
        ] {
            if time < Duration::from_millis(1) {
                return Err(UsageError(format!(
                    "{name} is zero: set it to at least 1ms"
                )));
            }
        }
        let needed = request_timeout + HORIZON + TOLERANCE + LEASE_MARGIN;
        let lease = lease.unwrap_or(request_timeout + Duration::from_secs(15));
        if lease < needed {
            return Err(UsageError(format!(
                "a lease of {lease:?} is too short for a request timeout of {request_timeout:?}: set WORKER_LEASE to at least {needed:?}, or WORKER_REQUEST_TIMEOUT lower"
            )));
        }
        Ok(Self {
            lease,
            request_timeout,
            connect_timeout,
            connection_max_age,
            poll_interval,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlasts_the_wait_for_the_slot_and_the_call() {
        let (second, poll_interval) = (Duration::from_secs(1), Duration::from_millis(500));
        let timing = |lease| Timing::new(lease, second, second, second, poll_interval);
        let error = timing(Some(second + Duration::from_millis(999))).expect_err("too short");
        assert!(error.to_string().contains("set WORKER_LEASE"), "{error}");
        assert!(timing(Some(second * 3)).is_ok());
        assert!(timing(None).is_ok());
    }
}
