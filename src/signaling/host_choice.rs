//! Decides which of an app's hosts is called: a state machine without connections, clocks and tasks.
//!
//! The *serving* host is called until it can't be connected, or answers 502 to 504 three times in a row. Then the next
//! host of the list serves: the first that can be connected, or after 502 to 504 the first that has not lately refused a
//! connection. Where all hosts fail, each of them gets a few calls in turn.
//!
//! While another host serves, a search for the first host runs:
//!
//! | Search | Waits for | Leaves it by |
//! |---|---|---|
//! | `Off` | nothing: the first host serves | leaving the first host → `Running` |
//! | `Running` | a connection to the first host, every 10 to 60 s | a connection → `Off`, and the first host serves again; or `TrialOffered` if its responses were why it was left |
//! | `TrialOffered` | an attempt | the next attempt → `TrialRunning` |
//! | `TrialRunning` | the response of that one attempt | 502 to 504 or no response → `Running`, with twice the wait; any other response → `Off`, and the first host serves again; an attempt that ends before its call → `TrialOffered` |
//!
//! In each of them the first host may serve again because all others failed: then the search is `Off`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The responses of a gateway that has reached no working server.
const GATEWAY_FAILURES: RangeInclusive<u16> = 502..=504;
/// A host is left after so many of them in a row. One or two also come from a host that restarts a server.
const MAX_GATEWAY_FAILURES: u32 = 3;
/// The wait between two connections that look for the first host, until a trial fails.
const MIN_SEARCH_WAIT: Duration = Duration::from_secs(10);
/// The wait doubles with each trial that fails. A trial costs its message an attempt.
const MAX_SEARCH_WAIT: Duration = Duration::from_secs(60);

/// True if the status may come from the host rather than from the API behind it.
pub(super) fn is_gateway_failure(status: u16) -> bool {
    GATEWAY_FAILURES.contains(&status)
}

#[derive(Debug)]
pub(super) struct HostChoice {
    hosts: usize,
    serving: usize,
    /// Gateway failures of the serving host in a row.
    gateway_failures: u32,
    /// How often the first host was left for its responses, or failed a trial, since it last gave a good response.
    first_host_failures: u32,
    search: Search,
    /// The number of the latest search. A task of an earlier one has no effect.
    search_number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Off,
    Running,
    TrialOffered,
    TrialRunning,
}

/// One search for the first host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SearchTicket {
    number: u64,
    /// The wait before each connection.
    pub(super) wait: Duration,
}

/// The effect of a step on the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a search that is not started never finds the first host"]
pub(super) enum Change {
    None,
    /// Another host serves. A search is to be started if the first one was left.
    Moved {
        from: usize,
        to: usize,
        search: Option<SearchTicket>,
    },
    /// The first host serves again.
    Returned,
    /// The trial failed: the first host is to be searched for again.
    SearchAgain(SearchTicket),
}

impl HostChoice {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            hosts,
            serving: 0,
            gateway_failures: 0,
            first_host_failures: 0,
            search: Search::Off,
            search_number: 0,
        }
    }

    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    /// A connection to `reached` was made because `left`, which served, gave none.
    pub(super) fn connected_elsewhere(&mut self, left: usize, reached: usize) -> Change {
        if self.serving == left && left != reached {
            self.move_to(reached)
        } else {
            Change::None
        }
    }

    /// A host answered with this status. Only the serving host's responses count: others answer calls that started
    /// before they were left. It is left for no host that lately gave no connection: behind a firewall that drops
    /// packets, each try to connect would hold up all attempts for the connect timeout.
    pub(super) fn responded(
        &mut self,
        host: usize,
        status: u16,
        lately_unconnected: impl Fn(usize) -> bool,
    ) -> Change {
        if host != self.serving {
            return Change::None;
        }
        if !is_gateway_failure(status) {
            self.gateway_failures = 0;
            if host == 0 {
                self.first_host_failures = 0;
            }
            return Change::None;
        }
        self.gateway_failures = self.gateway_failures.saturating_add(1);
        if self.gateway_failures < MAX_GATEWAY_FAILURES {
            return Change::None;
        }
        let mut others = (1..self.hosts).map(|turn| (host + turn) % self.hosts);
        let Some(next) = others.find(|other| !lately_unconnected(*other)) else {
            return Change::None;
        };
        if host == 0 {
            self.first_host_failures = self.first_host_failures.saturating_add(1);
        }
        self.move_to(next)
    }

    /// True while this search goes on.
    pub(super) fn is_searching(&self, ticket: SearchTicket) -> bool {
        self.search == Search::Running && self.search_number == ticket.number
    }

    /// A search has connected to the first host. For a host that was left for its responses, that is no proof.
    pub(super) fn first_host_connected(&mut self, ticket: SearchTicket) -> Change {
        if !self.is_searching(ticket) {
            return Change::None;
        }
        if self.first_host_failures == 0 {
            return self.return_to_first_host();
        }
        self.search = Search::TrialOffered;
        Change::None
    }

    pub(super) fn offers_trial(&self) -> bool {
        self.search == Search::TrialOffered
    }

    /// Lets an attempt try the first host, if none does so yet.
    pub(super) fn take_trial(&mut self) -> bool {
        let is_offered = self.offers_trial();
        if is_offered {
            self.search = Search::TrialRunning;
        }
        is_offered
    }

    /// The attempt with the trial ended before its call.
    pub(super) fn trial_unused(&mut self) {
        if self.search == Search::TrialRunning {
            self.search = Search::TrialOffered;
        }
    }

    /// The attempt with the trial got no connection.
    pub(super) fn trial_unconnected(&mut self) -> Change {
        if self.search != Search::TrialRunning {
            return Change::None;
        }
        Change::SearchAgain(self.start_search())
    }

    /// The call of the trial ended, with this status if a response came.
    pub(super) fn trial_ended(&mut self, status: Option<u16>) -> Change {
        if self.search != Search::TrialRunning {
            return Change::None;
        }
        if status.is_some_and(|status| !is_gateway_failure(status)) {
            self.first_host_failures = 0;
            return self.return_to_first_host();
        }
        self.first_host_failures = self.first_host_failures.saturating_add(1);
        Change::SearchAgain(self.start_search())
    }

    fn move_to(&mut self, to: usize) -> Change {
        let from = std::mem::replace(&mut self.serving, to);
        self.gateway_failures = 0;
        let search = (from == 0).then(|| self.start_search());
        if to == 0 {
            self.search = Search::Off;
        }
        Change::Moved { from, to, search }
    }

    fn return_to_first_host(&mut self) -> Change {
        self.serving = 0;
        self.gateway_failures = 0;
        self.search = Search::Off;
        Change::Returned
    }

    fn start_search(&mut self) -> SearchTicket {
        self.search = Search::Running;
        self.search_number += 1;
        let doublings = self.first_host_failures.saturating_sub(1).min(8);
        SearchTicket {
            number: self.search_number,
            wait: (MIN_SEARCH_WAIT * (1 << doublings)).min(MAX_SEARCH_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Responses of one host, and the last one's effect.
    fn respond(choice: &mut HostChoice, host: usize, statuses: &[u16]) -> Change {
        let mut change = Change::None;
        for status in statuses {
            change = choice.responded(host, *status, |_| false);
        }
        change
    }

    /// The first of two hosts fails until it is left.
    fn left_for_its_responses() -> (HostChoice, SearchTicket) {
        let mut choice = HostChoice::new(2);
        let change = respond(&mut choice, 0, &[502, 503, 504]);
        let Change::Moved {
            from: 0,
            to: 1,
            search: Some(ticket),
        } = change
        else {
            panic!("{change:?}");
        };
        (choice, ticket)
    }

    /// A search connects, and an attempt takes the trial.
    fn begin_trial(choice: &mut HostChoice, ticket: SearchTicket) {
        assert_eq!(choice.first_host_connected(ticket), Change::None);
        assert!(choice.take_trial());
    }

    #[test]
    fn a_host_is_left_after_502_to_504_three_times_in_a_row() {
        let mut choice = HostChoice::new(2);
        for other in [200, 400, 401, 404, 429, 500, 501, 505] {
            let change = respond(&mut choice, 0, &[502, 504, other, 503]);
            assert_eq!(change, Change::None, "{other}");
            let _ = respond(&mut choice, 0, &[other]);
        }
        let _ = respond(&mut choice, 0, &[502, 502, 502]);
        assert_eq!(choice.serving(), 1);
    }

    #[test]
    fn an_only_host_is_never_left() {
        let mut choice = HostChoice::new(1);
        assert_eq!(respond(&mut choice, 0, &[502; 100]), Change::None);
        assert_eq!(choice.serving(), 0);
    }

    #[test]
    fn a_host_that_gives_no_connection_is_left_once() {
        let mut choice = HostChoice::new(3);
        assert!(matches!(
            choice.connected_elsewhere(0, 2),
            Change::Moved { from: 0, to: 2, .. }
        ));
        assert_eq!(choice.connected_elsewhere(0, 1), Change::None);
        assert_eq!(choice.serving(), 2);
    }

    #[test]
    fn late_responses_of_a_host_that_was_left_change_nothing() {
        let (mut choice, _) = left_for_its_responses();
        assert_eq!(respond(&mut choice, 0, &[502, 200, 502, 502]), Change::None);
        assert_eq!(respond(&mut choice, 1, &[502, 502]), Change::None);
        assert_eq!(choice.serving(), 1);
    }

    #[test]
    fn where_all_hosts_fail_each_gets_three_calls_in_turn() {
        let mut choice = HostChoice::new(3);
        for host in [0, 1, 2, 0, 1, 2] {
            assert_eq!(choice.serving(), host);
            let _ = respond(&mut choice, host, &[502, 502]);
            assert_eq!(choice.serving(), host);
            let _ = respond(&mut choice, host, &[502]);
        }
    }

    #[test]
    fn a_host_that_lately_gave_no_connection_is_no_alternative() {
        let mut choice = HostChoice::new(3);
        let _ = respond(&mut choice, 0, &[502, 502]);
        assert_eq!(choice.responded(0, 502, |_| true), Change::None);
        assert_eq!(choice.serving(), 0);
        let _ = choice.responded(0, 502, |other| other == 1);
        assert_eq!(choice.serving(), 2);
    }

    #[test]
    fn a_connection_proves_a_host_that_was_left_for_want_of_one() {
        let mut choice = HostChoice::new(2);
        let Change::Moved {
            search: Some(ticket),
            ..
        } = choice.connected_elsewhere(0, 1)
        else {
            panic!("no search");
        };
        assert_eq!(ticket.wait, MIN_SEARCH_WAIT);
        assert_eq!(choice.first_host_connected(ticket), Change::Returned);
        assert_eq!(choice.serving(), 0);
    }

    #[test]
    fn a_host_that_was_left_for_its_responses_gets_exactly_one_attempt() {
        let (mut choice, ticket) = left_for_its_responses();
        assert!(!choice.take_trial());
        begin_trial(&mut choice, ticket);
        assert!(!choice.take_trial());
        assert_eq!(choice.serving(), 1);
        assert_eq!(choice.trial_ended(Some(200)), Change::Returned);
        assert_eq!(choice.serving(), 0);
        assert!(!choice.take_trial());
    }

    #[test]
    fn a_trial_succeeds_by_any_response_but_502_to_504() {
        for (status, is_good) in [
            (Some(200), true),
            (Some(401), true),
            (Some(429), true),
            (Some(500), true),
            (Some(502), false),
            (Some(503), false),
            (Some(504), false),
            (None, false),
        ] {
            let (mut choice, ticket) = left_for_its_responses();
            begin_trial(&mut choice, ticket);
            let change = choice.trial_ended(status);
            assert_eq!(change == Change::Returned, is_good, "{status:?}");
        }
    }

    #[test]
    fn an_attempt_that_ends_before_its_call_leaves_the_trial_to_the_next() {
        let (mut choice, ticket) = left_for_its_responses();
        begin_trial(&mut choice, ticket);
        choice.trial_unused();
        assert!(choice.take_trial());
    }

    #[test]
    fn the_wait_grows_with_each_trial_that_fails_and_a_good_response_ends_that() {
        let (mut choice, mut ticket) = left_for_its_responses();
        let mut waits = vec![ticket.wait.as_secs()];
        for _ in 0..4 {
            begin_trial(&mut choice, ticket);
            let Change::SearchAgain(next) = choice.trial_ended(Some(503)) else {
                panic!("no search");
            };
            ticket = next;
            waits.push(ticket.wait.as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 60, 60]);

        begin_trial(&mut choice, ticket);
        assert_eq!(choice.trial_ended(Some(200)), Change::Returned);
        let change = respond(&mut choice, 0, &[200, 502, 502, 502]);
        assert!(
            matches!(change, Change::Moved { search: Some(ticket), .. } if ticket.wait == MIN_SEARCH_WAIT)
        );
    }

    #[test]
    fn a_trial_without_a_connection_does_not_make_the_wait_longer() {
        let (mut choice, ticket) = left_for_its_responses();
        begin_trial(&mut choice, ticket);
        assert!(
            matches!(choice.trial_unconnected(), Change::SearchAgain(next) if next.wait == ticket.wait)
        );
    }

    #[test]
    fn a_search_ends_where_the_first_host_serves_because_the_others_failed() {
        let (mut choice, ticket) = left_for_its_responses();
        let _ = respond(&mut choice, 1, &[502, 502, 502]);
        assert_eq!(choice.serving(), 0);
        assert!(!choice.is_searching(ticket));
        // The first host fails again: a second search runs, and the task of the first has no part in it.
        let _ = respond(&mut choice, 0, &[502, 502, 502]);
        assert_eq!(choice.first_host_connected(ticket), Change::None);
        assert!(!choice.offers_trial());
    }
}
