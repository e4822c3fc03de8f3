//! Decides which of an app's hosts the worker calls: a state machine without connections, clocks and tasks.
//!
//! The worker calls the *serving* host until that host can't be connected, or answers 502 to 504 three times in a row. Then
//! the next host of the list serves: the first that can be connected, or after 502 to 504 the first that has not lately
//! failed to connect. If all hosts fail, each of them gets a few calls in turn.
//!
//! | First host | Waits for | Leaves the state by |
//! |---|---|---|
//! | `Serving` | nothing | a failure of the first host → `Left` |
//! | `Left` | an attempt 10 to 60 s later | that attempt, which tries the first host → `OnTrial` |
//! | `OnTrial` | the end of that one attempt | 502 to 504 or no response → `Left`, with twice the wait; no connection → `Left`; an attempt that ends before its call → `Left`, without a wait; any other response → `Serving` |
//!
//! In each state the first host may serve again because all others failed.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The responses of a gateway that has reached no working server.
const GATEWAY_FAILURES: RangeInclusive<u16> = 502..=504;
/// One or two gateway failures in a row also come from a host that restarts a server.
const MAX_GATEWAY_FAILURES: u32 = 3;
/// The wait before the worker tries the first host again. The wait doubles with each trial that fails, because a trial costs
/// its message an attempt.
const MIN_WAIT: Duration = Duration::from_secs(10);
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct HostChoice {
    hosts: usize,
    serving: usize,
    /// Gateway failures of the serving host in a row.
    gateway_failures: u32,
    first_host: FirstHost,
    wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstHost {
    Serving,
    Left { try_at: Instant },
    OnTrial,
}

/// The effect of a step on the serving host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Moved { from: usize, to: usize },
    Returned,
}

impl HostChoice {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            hosts,
            serving: 0,
            gateway_failures: 0,
            first_host: FirstHost::Serving,
            wait: MIN_WAIT,
        }
    }

    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    /// The worker connected `reached` because `left`, which served, could not be connected.
    pub(super) fn connected_elsewhere(
        &mut self,
        left: usize,
        reached: usize,
        now: Instant,
    ) -> Change {
        if self.serving == left && left != reached {
            self.move_to(reached, now)
        } else {
            Change::None
        }
    }

    /// A host answered with this status. Only responses of the serving host count, because a late response of another host
    /// belongs to a call from before the move. The worker moves to no host that lately failed to connect: behind a firewall
    /// that drops packets, each connection would hold up all attempts for the connect timeout.
    pub(super) fn responded(
        &mut self,
        host: usize,
        status: u16,
        now: Instant,
        failed_to_connect: impl Fn(usize) -> bool,
    ) -> Change {
        if host != self.serving {
            return Change::None;
        }
        if !GATEWAY_FAILURES.contains(&status) {
            self.gateway_failures = 0;
            return Change::None;
        }
        self.gateway_failures = self.gateway_failures.saturating_add(1);
        if self.gateway_failures < MAX_GATEWAY_FAILURES {
            return Change::None;
        }
        let mut others = (1..self.hosts).map(|turn| (host + turn) % self.hosts);
        match others.find(|other| !failed_to_connect(*other)) {
            Some(next) => self.move_to(next, now),
            None => Change::None,
        }
    }

    /// True for the one attempt that tries the first host.
    pub(super) fn take_trial(&mut self, now: Instant) -> bool {
        let is_due = matches!(self.first_host, FirstHost::Left { try_at } if try_at <= now);
        if is_due {
            self.first_host = FirstHost::OnTrial;
        }
        is_due
    }

    /// The attempt ended before its call, so the next attempt after `wait` tries the first host. After the end of the trial,
    /// this has no effect.
    pub(super) fn trial_unused(&mut self, wait: Duration, now: Instant) {
        if self.first_host == FirstHost::OnTrial {
            self.first_host = FirstHost::Left { try_at: now + wait };
        }
    }

    pub(super) fn trial_unconnected(&mut self, now: Instant) {
        self.trial_unused(self.wait, now);
    }

    /// The call of the trial ended, with this status if a response came.
    pub(super) fn trial_ended(&mut self, status: Option<u16>, now: Instant) -> Change {
        if self.first_host != FirstHost::OnTrial {
            return Change::None;
        }
        if status.is_some_and(|status| !GATEWAY_FAILURES.contains(&status)) {
            self.wait = MIN_WAIT;
            self.move_to(0, now);
            return Change::Returned;
        }
        self.wait = (self.wait * 2).min(MAX_WAIT);
        self.trial_unused(self.wait, now);
        Change::None
    }

    fn move_to(&mut self, to: usize, now: Instant) -> Change {
        let from = std::mem::replace(&mut self.serving, to);
        self.gateway_failures = 0;
        if to == 0 {
            self.first_host = FirstHost::Serving;
        } else if from == 0 {
            self.first_host = FirstHost::Left {
                try_at: now + self.wait,
            };
        }
        Change::Moved { from, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts or more, and a clock that the tests set.
    struct Hosts {
        choice: HostChoice,
        now: Instant,
    }

    impl Hosts {
        fn new(hosts: usize) -> Self {
            Self {
                choice: HostChoice::new(hosts),
                now: Instant::now(),
            }
        }

        /// The first of two hosts fails until the worker leaves it.
        fn without_the_first() -> Self {
            let mut hosts = Self::new(2);
            let moved = Change::Moved { from: 0, to: 1 };
            assert_eq!(hosts.respond(0, &[502, 503, 504]), moved);
            hosts
        }

        /// Responses of one host, and the last one's effect.
        fn respond(&mut self, host: usize, statuses: &[u16]) -> Change {
            let respond = |status: &u16| self.choice.responded(host, *status, self.now, |_| false);
            statuses.iter().map(respond).last().expect("a response")
        }

        /// Lets time pass until an attempt tries the first host.
        fn begin_trial_after_s(&mut self) -> u64 {
            let begun = self.now;
            while !self.choice.take_trial(self.now) {
                self.now += Duration::from_secs(1);
            }
            self.now.duration_since(begun).as_secs()
        }

        fn end_trial(&mut self, status: Option<u16>) -> Change {
            self.choice.trial_ended(status, self.now)
        }
    }

    #[test]
    fn a_host_is_left_after_502_to_504_three_times_in_a_row() {
        let mut hosts = Hosts::new(2);
        for other in [200, 400, 401, 404, 429, 500, 501, 505] {
            let change = hosts.respond(0, &[502, 504, other, 503, other]);
            assert_eq!(change, Change::None, "{other}");
        }
        hosts.respond(0, &[502, 502, 502]);
        assert_eq!(hosts.choice.serving(), 1);
    }

    #[test]
    fn an_only_host_is_never_left() {
        let mut hosts = Hosts::new(1);
        assert_eq!(hosts.respond(0, &[502; 100]), Change::None);
        assert_eq!(hosts.choice.serving(), 0);
    }

    #[test]
    fn a_host_that_gives_no_connection_is_left_once() {
        let Hosts { mut choice, now } = Hosts::new(3);
        let moved = Change::Moved { from: 0, to: 2 };
        assert_eq!(choice.connected_elsewhere(0, 2, now), moved);
        assert_eq!(choice.connected_elsewhere(0, 1, now), Change::None);
        assert_eq!(choice.serving(), 2);
    }

    #[test]
    fn late_responses_of_a_host_that_was_left_change_nothing() {
        let mut hosts = Hosts::without_the_first();
        assert_eq!(hosts.respond(0, &[502, 200, 502, 502]), Change::None);
        assert_eq!(hosts.respond(1, &[502, 502]), Change::None);
        assert_eq!(hosts.choice.serving(), 1);
    }

    #[test]
    fn where_all_hosts_fail_each_gets_three_calls_in_turn() {
        let mut hosts = Hosts::new(3);
        for host in [0, 1, 2, 0, 1, 2] {
            assert_eq!(hosts.respond(host, &[502, 502]), Change::None);
            assert_eq!(hosts.choice.serving(), host);
            hosts.respond(host, &[502]);
        }
    }

    #[test]
    fn a_host_that_lately_failed_to_connect_is_no_alternative() {
        let mut hosts = Hosts::new(3);
        hosts.respond(0, &[502, 502]);
        let Hosts { mut choice, now } = hosts;
        assert_eq!(choice.responded(0, 502, now, |_| true), Change::None);
        assert_eq!(choice.serving(), 0);
        choice.responded(0, 502, now, |other| other == 1);
        assert_eq!(choice.serving(), 2);
    }

    #[test]
    fn the_first_host_gets_exactly_one_attempt() {
        let mut hosts = Hosts::without_the_first();
        assert_eq!(hosts.begin_trial_after_s(), 10);
        assert!(!hosts.choice.take_trial(hosts.now));
        assert_eq!(hosts.choice.serving(), 1);
        assert_eq!(hosts.end_trial(Some(200)), Change::Returned);
        assert_eq!(hosts.choice.serving(), 0);
    }

    #[test]
    fn a_trial_without_a_connection_does_not_make_the_wait_longer() {
        let mut hosts = Hosts::without_the_first();
        for _ in 0..3 {
            assert_eq!(hosts.begin_trial_after_s(), 10);
            hosts.choice.trial_unconnected(hosts.now);
        }
    }

    #[test]
    fn a_trial_succeeds_by_any_response_but_502_to_504() {
        for status in [200, 401, 429, 500] {
            let mut hosts = Hosts::without_the_first();
            hosts.begin_trial_after_s();
            assert_eq!(hosts.end_trial(Some(status)), Change::Returned, "{status}");
        }
        for status in [Some(502), Some(503), Some(504), None] {
            let mut hosts = Hosts::without_the_first();
            hosts.begin_trial_after_s();
            assert_eq!(hosts.end_trial(status), Change::None, "{status:?}");
        }
    }

    #[test]
    fn an_attempt_that_ends_before_its_call_leaves_the_trial_to_the_next() {
        let mut hosts = Hosts::without_the_first();
        hosts.begin_trial_after_s();
        hosts.choice.trial_unused(Duration::ZERO, hosts.now);
        assert!(hosts.choice.take_trial(hosts.now));
        hosts.end_trial(Some(200));
        hosts.choice.trial_unused(Duration::ZERO, hosts.now);
        assert!(!hosts.choice.take_trial(hosts.now));
    }

    #[test]
    fn the_wait_doubles_with_each_trial_that_fails_until_one_succeeds() {
        let mut hosts = Hosts::without_the_first();
        for wait_s in [10, 20, 40, 60, 60] {
            assert_eq!(hosts.begin_trial_after_s(), wait_s);
            hosts.end_trial(Some(503));
        }
        hosts.begin_trial_after_s();
        hosts.end_trial(Some(200));
        hosts.respond(0, &[502, 502, 502]);
        assert_eq!(hosts.begin_trial_after_s(), 10);
    }

    #[test]
    fn a_late_trial_changes_nothing_once_the_first_host_serves_again() {
        let mut hosts = Hosts::without_the_first();
        hosts.begin_trial_after_s();
        hosts.respond(1, &[502, 502, 502]);
        assert_eq!(hosts.choice.serving(), 0);
        assert_eq!(hosts.end_trial(Some(502)), Change::None);
        assert_eq!(hosts.choice.serving(), 0);
    }
}
