//! Decides whether a connection to the API may be reused. Pure functions of given times.
//!
//! | The worker does not reuse a connection | because otherwise |
//! |---|---|
//! | at its maximum age, less up to a fifth | calls would go to an address that the name service no longer returns |
//! | 20 s after its last use | a gateway might be closing or have dropped the connection |
//! | shortly before the timeout that the server announced (`Keep-Alive: timeout=5`) | the server might close the connection under a request |

use std::time::{Duration, Instant};

use hyper::HeaderMap;

use crate::retry::shortened_at_random;

/// Shorter than the usual idle timeouts of servers and gateways.
const MAX_IDLE: Duration = Duration::from_secs(20);
/// The time between the last reuse and the announced timeout. It covers the time from the choice of a connection to the
/// arrival of its request. For a timeout below 2 s, the margin is half of the timeout.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);
/// A failed call on a connection that was idle for this time may mean that a firewall drops idle connections.
const SUSPICIOUS_IDLE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionAge {
    retires_at: Instant,
    /// When the connection was made, or its last response was read.
    last_used: Instant,
    idle_limit: Duration,
}

impl ConnectionAge {
    pub(super) fn new(now: Instant, max_age: Duration) -> Self {
        Self {
            retires_at: now + shortened_at_random(max_age),
            last_used: now,
            idle_limit: MAX_IDLE,
        }
    }

    /// Takes in a response, with the timeout that the server announced in it.
    pub(super) fn used(&mut self, now: Instant, keep_alive: Option<Duration>) {
        self.last_used = now;
        self.idle_limit = keep_alive.map_or(MAX_IDLE, |timeout| {
            let margin = KEEP_ALIVE_MARGIN.min(timeout / 2);
            timeout.saturating_sub(margin).min(MAX_IDLE)
        });
    }

    pub(super) fn allows_reuse(&self, now: Instant) -> bool {
        now < self.retires_at && now.saturating_duration_since(self.last_used) < self.idle_limit
    }

    pub(super) fn was_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) >= SUSPICIOUS_IDLE
    }

    pub(super) fn used_since(&self, time: Instant) -> bool {
        self.last_used > time
    }
}

/// The server's idle timeout, from the header `Keep-Alive: timeout=5, max=100`.
pub(super) fn announced_timeout(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("keep-alive").iter();
    let parameters = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']));
    parameters
        .filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
            let seconds = value.trim().trim_matches('"').parse().ok()?;
            is_timeout.then(|| Duration::from_secs(seconds))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_ends_in_the_last_fifth_of_its_maximum_age() {
        let now = Instant::now();
        for _ in 0..100 {
            let mut age = ConnectionAge::new(now, 100 * SECOND);
            age.used(now + 79 * SECOND, None);
            assert!(age.allows_reuse(now + 79 * SECOND));
            age.used(now + 100 * SECOND, None);
            assert!(!age.allows_reuse(now + 100 * SECOND));
        }
    }

    #[test]
    fn an_announced_timeout_ends_reuse_with_a_margin_and_never_prolongs_it() {
        let now = Instant::now();
        for (announced_s, usable_ms, over_ms) in [
            (None, 19_999, 20_000),
            (Some(0), 0, 0),
            (Some(1), 499, 500),
            (Some(2), 999, 1_000),
            (Some(5), 3_999, 4_000),
            (Some(u64::MAX), 19_999, 20_000),
        ] {
            let mut age = ConnectionAge::new(now, 1_000 * SECOND);
            age.used(now, announced_s.map(Duration::from_secs));
            let allows = |ms| age.allows_reuse(now + Duration::from_millis(ms));
            assert_eq!(allows(usable_ms), usable_ms > 0, "{announced_s:?}");
            assert!(!allows(over_ms), "{announced_s:?}");
        }
    }

    #[test]
    fn the_shortest_timeout_of_the_header_counts_and_nonsense_does_not() {
        let announced = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", HeaderValue::from_static(value));
            announced_timeout(&headers)
        };
        for (value, seconds) in [
            ("timeout=5, max=100", 5),
            ("max=3,Timeout = 7", 7),
            ("timeout=\"9\"", 9),
            ("timeout=9, timeout=4", 4),
        ] {
            assert_eq!(announced(value), Some(seconds * SECOND), "{value}");
        }
        for value in ["", "timeout", "timeout=-1", "timeout=1.5", "max=5"] {
            assert_eq!(announced(value), None, "{value}");
        }
        assert_eq!(announced_timeout(&HeaderMap::new()), None);
    }
}
