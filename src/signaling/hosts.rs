//! Chooses the host of each call: the first of the list that works.
//!
//! The worker avoids a host for 20 s after the host can't be connected, or answers 502 to 504 three times in a row. Then one
//! attempt tries the host. The host works again if it answers anything but 502 to 504; otherwise the worker avoids it for
//! another 20 s. If no host works, attempts try the host that the worker has avoided for the longest time.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::connection_pool::{Connection, ConnectionPool};
use super::{CallFailure, Client, Response};

/// The responses of a gateway that has reached no working server.
const GATEWAY_FAILURES: RangeInclusive<u16> = 502..=504;
/// One or two gateway failures in a row also come from a host that restarts a server.
const MAX_GATEWAY_FAILURES: u32 = 3;
/// A trial of a host that fails costs its message an attempt.
const AVOID_FOR: Duration = Duration::from_secs(20);

/// The result of a connection to one host.
#[derive(Debug)]
pub(crate) struct TriedHost {
    pub(crate) base_url: String,
    pub(crate) proxy: Option<String>,
    /// The time that the connection took.
    pub(crate) connected: Result<Duration, CallFailure>,
}

#[derive(Debug, Clone, Default)]
struct Host {
    /// Gateway failures in a row.
    gateway_failures: u32,
    /// None if the host works.
    avoided_until: Option<Instant>,
    /// Behind a firewall that drops packets, a connection holds up its attempt for the connect timeout. So the worker tries
    /// such a host last.
    is_unreachable: bool,
}

/// The state of each host: pure functions of given times.
#[derive(Debug)]
pub(super) struct Hosts(Vec<Host>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Avoided,
    Restored,
}

impl Hosts {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![Host::default(); count])
    }

    /// The order in which an attempt tries the hosts.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.0.len()).collect();
        order.sort_by_key(|index| {
            let host = &self.0[*index];
            let avoided_until = host.avoided_until.filter(|until| now < *until);
            (
                avoided_until.is_some() && host.is_unreachable,
                avoided_until,
            )
        });
        order
    }

    /// True if this attempt finds out whether an avoided host works again. Other attempts go on to avoid the host.
    fn begin_trial(&mut self, index: usize, now: Instant) -> bool {
        let avoided_until = &mut self.0[index].avoided_until;
        *avoided_until = avoided_until.map(|_| now + AVOID_FOR);
        avoided_until.is_some()
    }

    fn avoid(&mut self, index: usize, is_unreachable: bool, now: Instant) -> Change {
        if self.0.len() == 1 {
            return Change::None;
        }
        let host = &mut self.0[index];
        host.is_unreachable = is_unreachable;
        match host.avoided_until.replace(now + AVOID_FOR) {
            None => Change::Avoided,
            Some(_) => Change::None,
        }
    }

    /// A host answered with this status. The late response of a call from before the host was avoided does not restore it.
    fn responded(&mut self, index: usize, is_trial: bool, status: u16, now: Instant) -> Change {
        let host = &mut self.0[index];
        if GATEWAY_FAILURES.contains(&status) {
            host.gateway_failures = host.gateway_failures.saturating_add(1);
            if is_trial || host.gateway_failures >= MAX_GATEWAY_FAILURES {
                return self.avoid(index, false, now);
            }
            return Change::None;
        }
        host.gateway_failures = 0;
        if is_trial && host.avoided_until.take().is_some() {
            return Change::Restored;
        }
        Change::None
    }
}

impl Client {
    /// The host that the worker calls at present.
    pub(crate) fn serving(&self) -> &ConnectionPool {
        &self.pools[self.hosts.lock().order(Instant::now())[0]]
    }

    /// The host that works in place of this one. While no host works, the host itself: then its failures are the API's.
    pub(crate) fn serving_beside(&self, host: usize) -> usize {
        let hosts = &self.hosts.lock().0;
        let works = |index: &usize| hosts[*index].avoided_until.is_none();
        let mut candidates = std::iter::once(host).chain(0..hosts.len());
        candidates.find(works).unwrap_or(host)
    }

    /// A connection that is ready, to the first host in order that can be connected.
    ///
    /// # Errors
    /// [`CallFailure::NotSent`] if no host can be connected in time.
    pub(crate) async fn connection(&self) -> Result<Connection, CallFailure> {
        let order = self.hosts.lock().order(Instant::now());
        let mut first_failure = None;
        for index in order {
            let is_trial = self.hosts.lock().begin_trial(index, Instant::now());
            match self.pools[index].get().await {
                Ok(connection) => {
                    return Ok(Connection {
                        is_trial,
                        ..connection
                    });
                }
                Err(failure) => {
                    let change = self.hosts.lock().avoid(index, true, Instant::now());
                    self.log(change, index, &failure.to_string());
                    first_failure.get_or_insert(failure);
                }
            }
        }
        Err(first_failure.unwrap_or_else(|| CallFailure::NotSent("no host is configured".into())))
    }

    /// Takes in a response. Without a response, either the host or the API behind it may be slow.
    pub(super) fn observe(&self, host: usize, is_trial: bool, response: &Response) {
        let status = response.status;
        let mut hosts = self.hosts.lock();
        let change = hosts.responded(host, is_trial, status, Instant::now());
        drop(hosts);
        self.log(change, host, &format!("it answered HTTP {status}"));
    }

    /// Connects each host in the order of the list, and measures the time.
    pub(crate) async fn try_hosts(&self) -> Vec<TriedHost> {
        let mut tried = Vec::with_capacity(self.pools.len());
        for pool in &self.pools {
            let begun = Instant::now();
            let connected = pool.get().await.map(|connection| {
                connection.put_back();
                begun.elapsed()
            });
            tried.push(TriedHost {
                base_url: pool.base_url.to_string(),
                proxy: pool.proxy.as_ref().map(|proxy| proxy.uri().to_string()),
                connected,
            });
        }
        tried
    }

    fn log(&self, change: Change, host: usize, why: &str) {
        if change == Change::None {
            return;
        }
        // Hosts that fail now and then may change several times a second.
        let Some(suppressed) = self.log_throttle.admit() else {
            return;
        };
        let app_id = &self.app.app_id;
        let base_url = &self.pools[host].base_url;
        if change == Change::Restored {
            tracing::info!(
                event = "host_restored",
                app_id,
                to = %base_url,
                suppressed,
                "calling a host of the API again"
            );
        } else {
            tracing::warn!(
                event = "host_changed",
                app_id,
                from = %base_url,
                to = %self.serving().base_url,
                why,
                suppressed,
                "calling another host of the API"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Change = Change::None;

    fn respond(hosts: &mut Hosts, index: usize, statuses: &[u16], now: Instant) -> Change {
        let respond = |status: &u16| hosts.responded(index, false, *status, now);
        statuses.iter().map(respond).last().expect("a response")
    }

    #[test]
    fn a_host_is_avoided_after_502_to_504_three_times_in_a_row() {
        let (mut hosts, now) = (Hosts::new(2), Instant::now());
        for other in [200, 400, 401, 404, 429, 500, 501, 505] {
            let change = respond(&mut hosts, 0, &[502, 504, other, 503, other], now);
            assert_eq!((change, hosts.order(now)[0]), (NONE, 0), "{other}");
        }
        assert_eq!(
            respond(&mut hosts, 0, &[502, 503, 504], now),
            Change::Avoided
        );
        assert_eq!(hosts.order(now), [1, 0]);
        assert_eq!(respond(&mut hosts, 0, &[502, 200], now), NONE, "late");
        assert_eq!(hosts.order(now), [1, 0]);
    }

    #[test]
    fn one_attempt_tries_an_avoided_host_until_it_answers() {
        for (status, change, first) in [
            (200, Change::Restored, 0),
            (401, Change::Restored, 0),
            (500, Change::Restored, 0),
            (503, NONE, 1),
        ] {
            let (mut hosts, now) = (Hosts::new(2), Instant::now());
            assert!(!hosts.begin_trial(0, now), "the host works");
            assert_eq!(hosts.avoid(0, true, now), Change::Avoided);
            let later = now + AVOID_FOR;
            assert_eq!(hosts.order(later), [0, 1]);
            assert!(hosts.begin_trial(0, later));
            assert_eq!(hosts.order(later), [1, 0], "a trial is under way");
            assert_eq!(hosts.responded(0, true, status, later), change, "{status}");
            assert_eq!(hosts.order(later)[0], first, "{status}");
        }
    }

    #[test]
    fn where_no_host_works_attempts_take_turns_and_unreachable_hosts_are_last() {
        let (mut hosts, mut now) = (Hosts::new(3), Instant::now());
        for (index, is_unreachable) in [(2, true), (1, false), (0, false)] {
            now += Duration::from_secs(1);
            hosts.avoid(index, is_unreachable, now);
        }
        for expected in [[1, 0, 2], [0, 1, 2], [1, 0, 2]] {
            now += Duration::from_secs(1);
            let order = hosts.order(now);
            assert_eq!(order, expected);
            assert!(hosts.begin_trial(order[0], now));
        }
    }

    #[test]
    fn an_only_host_is_never_avoided() {
        let (mut hosts, now) = (Hosts::new(1), Instant::now());
        assert_eq!(respond(&mut hosts, 0, &[502; 100], now), NONE);
        assert_eq!(hosts.avoid(0, true, now), NONE);
        assert!(!hosts.begin_trial(0, now));
    }
}
