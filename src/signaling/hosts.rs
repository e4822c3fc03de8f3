//! Chooses the host of each call: the first of the list that works.
//!
//! The worker avoids a host for 20 s if the worker can't connect to it, or if it answers 502 to 504 three times in a row.
//! Then one attempt tries the host. The host works again if it answers anything but 502 to 504; otherwise the worker avoids
//! it for another 20 s. If no host works, attempts try the host that the worker has avoided for the longest time.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::connection_pool::{Connection, ConnectionPool};
use super::{CallFailure, Client};

/// The responses of a gateway that has reached no working server.
const GATEWAY_FAILURES: RangeInclusive<u16> = 502..=504;
/// One or two gateway failures in a row also come from a host that restarts a server.
const MAX_GATEWAY_FAILURES: u32 = 3;
/// Each trial of a host that still fails costs a message an attempt.
const AVOID_FOR: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Default)]
struct Host {
    gateway_failures: u32,
    /// None if the host works.
    avoided_until: Option<Instant>,
    /// The last connection failed. If a firewall drops packets, each attempt at this host misses its slot, so the worker tries
    /// such hosts last. Otherwise the probes of a held lane would never reach another host that works again.
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

    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.0.len()).collect();
        order.sort_by_key(|index| {
            let host = &self.0[*index];
            let avoided_until = host.avoided_until.filter(|until| now < *until);
            let is_unreachable = avoided_until.is_some() && host.is_unreachable;
            (is_unreachable, avoided_until)
        });
        order
    }

    /// True if this attempt is the trial of an avoided host. Other attempts go on to avoid the host.
    fn begin_attempt(&mut self, index: usize, now: Instant) -> bool {
        let avoided_until = &mut self.0[index].avoided_until;
        *avoided_until = avoided_until.map(|_| now + AVOID_FOR);
        avoided_until.is_some()
    }

    /// A trial sent no request, so the next attempt is the trial.
    fn end_trial(&mut self, index: usize, now: Instant) {
        let avoided_until = &mut self.0[index].avoided_until;
        *avoided_until = avoided_until.map(|_| now);
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

    /// Only the response to a trial restores an avoided host, because a response to an older call may be late.
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

    /// True unless the worker avoids the host and calls another one. While no host works, their failures count as the API's.
    pub(crate) fn is_serving(&self, host: usize) -> bool {
        let hosts = &self.hosts.lock().0;
        let works = |host: &Host| host.avoided_until.is_none();
        works(&hosts[host]) || !hosts.iter().any(works)
    }

    /// A ready connection to the first host in order that the worker can reach.
    /// [`CallFailure::NotSent`]: the worker can reach no host in time.
    pub(crate) async fn connection(&self) -> Result<Connection, CallFailure> {
        let order = self.hosts.lock().order(Instant::now());
        let mut first_failure = None;
        for index in order {
            let is_trial = self.hosts.lock().begin_attempt(index, Instant::now());
            match self.pools[index].get().await {
                Ok(mut connection) => {
                    connection.is_trial = is_trial;
                    return Ok(connection);
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

    /// Puts back a connection on which no request went out.
    pub(crate) fn put_back(&self, connection: Connection) {
        let host = connection.host;
        if connection.is_trial {
            self.hosts.lock().end_trial(host, Instant::now());
        }
        self.pools[host].put_back(connection);
    }

    /// Applies the status of a response. A missing response is no evidence against the host, because the API behind it may be
    /// slow.
    pub(super) fn observe(&self, host: usize, is_trial: bool, status: u16) {
        let mut hosts = self.hosts.lock();
        let change = hosts.responded(host, is_trial, status, Instant::now());
        drop(hosts);
        self.log(change, host, &format!("it answered HTTP {status}"));
    }

    fn log(&self, change: Change, host: usize, why: &str) {
        if change == Change::None {
            return;
        }
        // A host that fails half of its calls may change many times a second.
        let log = &self.host_logs[usize::from(change == Change::Restored)];
        let Some(suppressed) = log.admit() else {
            return;
        };
        let (app_id, base_url) = (&self.app.app_id, &self.pools[host].base_url);
        if change == Change::Avoided {
            tracing::warn!(
                event = "host_changed",
                app_id,
                from = %base_url,
                to = %self.serving().base_url,
                why,
                suppressed,
                "calling another host of the API"
            );
        } else {
            tracing::info!(
                event = "host_restored",
                app_id,
                to = %base_url,
                suppressed,
                "calling a host of the API again"
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
            assert!(!hosts.begin_attempt(0, now), "the host works");
            assert_eq!(hosts.avoid(0, true, now), Change::Avoided);
            let later = now + AVOID_FOR;
            assert_eq!(hosts.order(later), [0, 1]);
            assert!(hosts.begin_attempt(0, later));
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
            assert_eq!(hosts.order(now), expected);
            assert!(hosts.begin_attempt(expected[0], now));
        }
    }

    #[test]
    fn a_host_that_works_again_is_reached_although_another_one_is_unreachable() {
        let (mut hosts, mut now) = (Hosts::new(2), Instant::now());
        hosts.avoid(0, true, now);
        hosts.avoid(1, false, now);
        // One probe at a time. Each attempt at the unreachable host makes its message miss its slot.
        for _ in 0..3 {
            now += Duration::from_secs(4);
            let first = hosts.order(now)[0];
            assert_eq!(first, 1);
            hosts.begin_attempt(first, now);
        }
        now += AVOID_FOR;
        hosts.begin_attempt(0, now);
        hosts.avoid(0, true, now);
        assert_eq!(hosts.order(now)[0], 1);
    }

    #[test]
    fn a_trial_whose_message_misses_its_slot_is_made_by_the_next_attempt() {
        let (mut hosts, now) = (Hosts::new(2), Instant::now());
        hosts.avoid(0, false, now);
        let later = now + AVOID_FOR;
        assert!(hosts.begin_attempt(0, later));
        hosts.end_trial(0, later);
        assert_eq!(hosts.order(later), [0, 1]);
        assert!(hosts.begin_attempt(0, later));
    }

    #[test]
    fn an_only_host_is_never_avoided() {
        let (mut hosts, now) = (Hosts::new(1), Instant::now());
        assert_eq!(respond(&mut hosts, 0, &[502; 100], now), NONE);
        assert_eq!(hosts.avoid(0, true, now), NONE);
        assert!(!hosts.begin_attempt(0, now));
    }
}
