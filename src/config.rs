//! Settings, checked when they are built. The errors name the variable or flag to change.

mod app;
mod file;

use std::path::PathBuf;
use std::time::Duration;

use crate::pace::{HORIZON, TOLERANCE};
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::sanitize;
use crate::telemetry::traces::Traces;

pub(crate) use app::{AppConfig, AppError, RawApp, check_distinct};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use file::parse_apps;
pub(crate) use file::{InvalidToml, read_apps};

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
    pub(crate) proxies: ProxyVariables,
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

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "no app is configured: set AGORA_APP_ID and how to sign in (AGORA_API_KEY and AGORA_API_SECRET), or name a file of apps with --config"
    )]
    NoApp,
    #[error(
        "apps are configured twice: with --config, leave the app ID, AGORA_UID and the secrets out of the variables and flags"
    )]
    TwoSources,
    #[error(
        "the apps {0:?} and {1:?} have the same app ID, and so one limit of calls: make them one app"
    )]
    SameAppId(String, String),
    #[error("the app {alias:?}: {source}", alias = sanitize::text(alias, 64))]
    App { alias: String, source: AppError },
    #[error("the configuration {path} can't be read: {source}", path = .path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration {path} is not right: {source}", path = .path.display())]
    Toml { path: PathBuf, source: InvalidToml },
    #[error(
        "a lease of {lease:?} is too short for a request timeout of {request_timeout:?}: set WORKER_LEASE to at least {needed:?}, or WORKER_REQUEST_TIMEOUT lower"
    )]
    LeaseTooShort {
        lease: Duration,
        request_timeout: Duration,
        needed: Duration,
    },
    #[error(
        "the retry cap {cap:?} is shorter than the retry base {base:?}: raise WORKER_RETRY_CAP or lower WORKER_RETRY_BASE"
    )]
    RetryCapBelowBase { base: Duration, cap: Duration },
    #[error("{0} is zero: set it to at least 1ms")]
    Zero(&'static str),
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
    ) -> Result<Self, ConfigError> {
        for (name, time) in [
            ("WORKER_REQUEST_TIMEOUT", request_timeout),
            ("WORKER_CONNECT_TIMEOUT", connect_timeout),
            ("WORKER_CONNECTION_MAX_AGE", connection_max_age),
            ("WORKER_POLL_INTERVAL", poll_interval),
        ] {
            if time < Duration::from_millis(1) {
                return Err(ConfigError::Zero(name));
            }
        }
        let needed = request_timeout + HORIZON + TOLERANCE + LEASE_MARGIN;
        let lease = lease.unwrap_or(request_timeout + Duration::from_secs(15));
        if lease < needed {
            return Err(ConfigError::LeaseTooShort {
                lease,
                request_timeout,
                needed,
            });
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
        assert!(matches!(
            timing(Some(second + Duration::from_millis(999))),
            Err(ConfigError::LeaseTooShort { .. })
        ));
        assert!(timing(Some(second * 3)).is_ok());
        assert!(timing(None).is_ok());
    }
}
