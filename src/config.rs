//! Settings, checked when they are built. The errors name the variable or flag to change.

mod app;

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::pace::{HORIZON, TOLERANCE};
use crate::retry::RetryPolicy;
use crate::telemetry::traces::Traces;
use crate::time_text::{parse_duration, parse_positive};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use app::parse_apps;
pub(crate) use app::{AppConfig, RawApp, apps, is_name};

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

/// Durations that depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Timing {
    /// Longest time from the start of a call to the end of its response
    #[arg(long, env = "WORKER_REQUEST_TIMEOUT", default_value = "15s", value_parser = parse_positive)]
    pub(crate) request_timeout: Duration,

    /// Longest time to connect to the API
    #[arg(long, env = "WORKER_CONNECT_TIMEOUT", default_value = "5s", value_parser = parse_positive)]
    pub(crate) connect_timeout: Duration,

    /// Longest time for which the worker reuses a connection to the API. Connections end at random, somewhat earlier. The
    /// worker follows a change of the API's addresses in DNS within this time
    #[arg(long, env = "WORKER_CONNECTION_MAX_AGE", default_value = "2m", value_parser = parse_positive)]
    pub(crate) connection_max_age: Duration,

    /// Longest time between two polls of an idle app while inserts notify the worker. Without notifications, the worker
    /// polls at least every 200 ms
    #[arg(long, env = "WORKER_POLL_INTERVAL", default_value = "1s", value_parser = parse_positive)]
    pub(crate) poll_interval: Duration,

    /// How long a claimed message belongs to this worker. If the worker dies, another worker claims the message after that
    /// [default: the request timeout plus 15s]
    #[arg(long, env = "WORKER_LEASE", value_parser = parse_duration)]
    pub(crate) lease: Option<Duration>,
}

/// A mistake in the command line or the settings, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Replaces the error of the standard library, which does not say how to write a number.
pub(crate) fn parse_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse()
        .map_err(|_| "it is not a valid number: write it like 200")
}

/// Covers the longest lookahead (`Lookahead::MAX`), by which slots lie ahead of the claim.
const LEASE_MARGIN: Duration = Duration::from_millis(840);

impl Timing {
    pub(crate) fn lease(&self) -> Duration {
        let default = self.request_timeout + Duration::from_secs(15);
        self.lease.unwrap_or(default)
    }

    /// Fails if the lease is so short that no slot leaves time for a call. Such a worker would release every message.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        let (lease, request_timeout) = (self.lease(), self.request_timeout);
        let needed = request_timeout + HORIZON + TOLERANCE + LEASE_MARGIN;
        if lease >= needed {
            return Ok(());
        }
        Err(UsageError(format!(
            "a lease of {lease:?} is too short for a request timeout of {request_timeout:?}: set WORKER_LEASE to at least {needed:?}, or WORKER_REQUEST_TIMEOUT lower"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlasts_the_wait_for_the_slot_and_the_call() {
        let second = Duration::from_secs(1);
        let timing = |lease| {
            let timing = Timing {
                request_timeout: second,
                connect_timeout: second,
                connection_max_age: second,
                poll_interval: second,
                lease,
            };
            timing.check()
        };
        let error = timing(Some(second + Duration::from_millis(999))).expect_err("too short");
        assert!(error.to_string().contains("set WORKER_LEASE"), "{error}");
        assert!(timing(Some(second * 3)).is_ok());
        assert!(timing(None).is_ok());
    }
}
