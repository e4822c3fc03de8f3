//! How the simulated API behaves: what can be changed while it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SimulatorError;
use super::auth::Credentials;

/// How the simulated API behaves, apart from faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The most calls of an app in any sliding second, both kinds together; `None` for no limit.
    pub limit: Option<u32>,
    /// Limits of single apps, by app ID.
    pub app_limits: BTreeMap<String, Option<u32>>,
    /// The `Retry-After` header of a call refused by the limit.
    pub retry_after: Option<String>,
    /// Receivers whose name begins so are offline; `None` when nobody is.
    pub offline_prefix: Option<String>,
    /// Milliseconds that every answer takes.
    pub latency_ms: u64,
    /// Up to so many milliseconds more, evenly spread.
    pub jitter_ms: u64,
    /// Seconds that a response announces to keep its connection, by `Keep-Alive: timeout=`; `None` announces nothing.
    pub keep_alive_s: Option<u64>,
    /// Milliseconds without a request after which a connection is closed; `None` keeps it.
    pub idle_close_ms: Option<u64>,
    /// The server sends `Connection: close` with each response, and closes the connection.
    pub closes_connections: bool,
    pub credentials: Credentials,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            limit: Some(500),
            app_limits: BTreeMap::new(),
            retry_after: None,
            offline_prefix: Some("offline-".to_owned()),
            latency_ms: 0,
            jitter_ms: 0,
            keep_alive_s: None,
            idle_close_ms: None,
            closes_connections: false,
            credentials: Credentials::default(),
        }
    }
}

impl Behaviour {
    /// The limit that holds for `app_id`.
    pub fn limit_of(&self, app_id: &str) -> Option<u32> {
        self.app_limits.get(app_id).copied().unwrap_or(self.limit)
    }

    pub(super) fn is_offline(&self, receiver: &str) -> bool {
        self.offline_prefix
            .as_ref()
            .is_some_and(|prefix| receiver.starts_with(prefix))
    }

    pub(super) fn check(&self) -> Result<(), SimulatorError> {
        match &self.retry_after {
            Some(value) if axum::http::HeaderValue::from_str(value).is_err() => {
                Err(SimulatorError::RetryAfter(value.clone()))
            }
            _ => Ok(()),
        }
    }
}
