use anyhow::ensure;
use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::auth::Credentials;

/// Properties of the simulated API, apart from faults, that can be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The most calls of an app in any sliding second. `None` is no limit.
    pub limit: Option<u32>,
    /// The `Retry-After` header of calls over the limit.
    pub retry_after: Option<String>,
    /// Receivers whose name begins with this prefix are offline.
    pub offline_prefix: Option<String>,
    /// The delay of every response, and an additional random delay of at most `jitter_ms`.
    pub latency_ms: u64,
    pub jitter_ms: u64,
    /// Each response announces `Keep-Alive: timeout=` with these seconds.
    pub keep_alive_s: Option<u64>,
    /// The API closes a connection after so many milliseconds without a request.
    pub idle_close_ms: Option<u64>,
    /// The API closes each connection after a response, which says `Connection: close`.
    pub closes_connections: bool,
    pub credentials: Credentials,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            limit: Some(500),
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
    pub(super) fn is_offline(&self, receiver: &str) -> bool {
        let prefix = self.offline_prefix.as_ref();
        prefix.is_some_and(|prefix| receiver.starts_with(prefix))
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let retry_after = self.retry_after.as_deref().unwrap_or_default();
        ensure!(
            HeaderValue::from_str(retry_after).is_ok(),
            "`{retry_after}` can't be sent as Retry-After: write seconds or an HTTP date"
        );
        Ok(())
    }
}
