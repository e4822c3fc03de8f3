//! Counts votes: failed calls that are evidence against the API.
//!
//! - A first attempt has a vote. A retry has one only while the API accepts no message, because most retries are of
//!   messages that can't succeed.
//! - A call that waits for its recipient and times out has none.
//! - While the API accepts messages to other destinations, a destination has one vote, because it may be at fault itself.
//! - If the API accepts a message after a doubt, the destinations whose votes led to the doubt lose their vote for an hour,
//!   or until the API accepts a message to them. Otherwise they would make the worker doubt again and again.
//! - Votes count for the host of the API that was called.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Attempt, AttemptKind, push_bounded};
use crate::outbox::HoldKind;
use crate::outcome::Outcome;

/// The fewest votes in a row that make a worker doubt.
const MIN_VOTES: u32 = 8;
/// The same if the API refused the credentials each time.
const MIN_REFUSALS: u32 = 4;
/// The same if it also has accepted none of the recent calls.
const MIN_FIRST_REFUSALS: u32 = 2;
/// This many votes in a row always make a worker doubt.
const MAX_VOTES: u32 = 32;
/// A worker doubts if the probability that its votes in a row are chance is at most this.
const CHANCE: f64 = 1e-6;
const RECENT_CALLS: usize = 64;
/// How long an accepted message is evidence.
pub(super) const ACCEPTANCE_LASTS: Duration = Duration::from_secs(10);
/// More than the destinations of a run, so that other destinations are found among them.
const MAX_ACCEPTED_TARGETS: usize = 40;
const MAX_EXEMPT: usize = 256;
const EXEMPT_FOR: Duration = Duration::from_hours(1);

/// The votes of one worker, for one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    /// For each host, the votes since it last accepted, rejected or throttled a message.
    runs: Vec<Run>,
    /// The last accepted messages (true) and votes (false) before the present runs.
    recent: VecDeque<bool>,
    /// The last destinations to which the API accepted messages.
    accepted_targets: VecDeque<(u64, Instant)>,
    /// Destinations whose votes led to the present doubt.
    suspects: Vec<u64>,
    /// Destinations that have lost their vote, and since when.
    exempt: VecDeque<(u64, Instant)>,
}

/// Votes in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Run {
    calls: u32,
    refusals: u32,
    /// The destinations, each once.
    targets: Vec<u64>,
    /// Of the last call.
    error: String,
}

impl Votes {
    pub(super) fn accepted(&mut self, host: usize, target: u64, now: Instant) {
        let votes = self.runs.get(host).map_or(0, |run| self.count(run, now));
        self.end_run(host);
        for vote in std::iter::repeat_n(false, votes as usize).chain([true]) {
            push_bounded(&mut self.recent, vote, RECENT_CALLS);
        }
        self.accepted_targets.retain(|(known, _)| *known != target);
        let accepted = &mut self.accepted_targets;
        push_bounded(accepted, (target, now), MAX_ACCEPTED_TARGETS);
        for suspect in std::mem::take(&mut self.suspects) {
            push_bounded(&mut self.exempt, (suspect, now), MAX_EXEMPT);
        }
        self.exempt.retain(|(known, _)| *known != target);
    }

    pub(super) fn end_run(&mut self, host: usize) {
        if let Some(run) = self.runs.get_mut(host) {
            *run = Run::default();
        }
    }

    /// Counts a failed call if it has a vote.
    pub(super) fn failed(&mut self, attempt: Attempt<'_>, now: Instant) {
        let has_vote = attempt.kind == AttemptKind::First || !self.was_accepted_lately(now);
        if !has_vote || attempt.is_ack_timeout || self.is_exempt(attempt.target, now) {
            return;
        }
        if self.runs.len() <= attempt.host {
            self.runs.resize_with(attempt.host + 1, Run::default);
        }
        let run = &mut self.runs[attempt.host];
        run.calls = run.calls.saturating_add(1);
        run.refusals += u32::from(attempt.outcome == Outcome::Unauthorized);
        attempt.error.clone_into(&mut run.error);
        if run.targets.len() < MAX_VOTES as usize && !run.targets.contains(&attempt.target) {
            run.targets.push(attempt.target);
        }
    }

    fn is_exempt(&mut self, target: u64, now: Instant) -> bool {
        self.exempt
            .retain(|(_, since)| now.saturating_duration_since(*since) < EXEMPT_FOR);
        self.exempt.iter().any(|(known, _)| *known == target)
    }

    /// True if the votes in a row, up to this attempt, can't be chance. `min_votes` replaces the usual minimum.
    pub(super) fn are_too_many(
        &self,
        attempt: Attempt<'_>,
        min_votes: Option<u32>,
        now: Instant,
    ) -> bool {
        // A late response of an earlier host is no evidence about the host that serves now.
        if attempt.host != attempt.serving_host {
            return false;
        }
        let run = self.runs.get(attempt.host).filter(|run| run.calls > 0);
        run.is_some_and(|run| {
            self.count(run, now) >= min_votes.unwrap_or_else(|| self.min_votes(run))
        })
    }

    /// Votes in a row that can't be chance. The more calls have failed lately, the more votes it takes.
    fn min_votes(&self, run: &Run) -> u32 {
        let accepted = self.recent.iter().filter(|is_accepted| **is_accepted);
        let accepted = u32::try_from(accepted.count()).unwrap_or(0);
        let all = u32::try_from(self.recent.len()).unwrap_or(0);
        let least = match (run.refusals == run.calls, accepted) {
            (true, 0) => MIN_FIRST_REFUSALS,
            (true, _) => MIN_REFUSALS,
            (false, _) => MIN_VOTES,
        };
        if accepted == 0 {
            return least;
        }
        let share_that_fails = f64::from(all - accepted + 1) / f64::from(all + 2);
        (least..MAX_VOTES)
            .find(|votes| share_that_fails.powf(f64::from(*votes)) <= CHANCE)
            .unwrap_or(MAX_VOTES)
    }

    /// The votes of a run. While the API accepts no message to another destination, all calls count, because the app may
    /// have few destinations.
    fn count(&self, run: &Run, now: Instant) -> u32 {
        if self
            .accepted_lately(now)
            .any(|target| !run.targets.contains(&target))
        {
            u32::try_from(run.targets.len()).unwrap_or(MAX_VOTES)
        } else {
            run.calls
        }
    }

    /// The votes in a row of all hosts.
    pub(super) fn in_a_row(&self, now: Instant) -> u32 {
        self.runs.iter().map(|run| self.count(run, now)).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.calls == 0)
    }

    /// How many of the last calls the API accepted, and their number. None if it accepted no message lately.
    pub(super) fn accepted_share(&self, now: Instant) -> Option<(usize, usize)> {
        if !self.was_accepted_lately(now) {
            return None;
        }
        let run = usize::try_from(self.in_a_row(now)).unwrap_or(usize::MAX);
        let before = self.recent.iter().rev();
        let before = before.take(RECENT_CALLS.saturating_sub(run));
        let all = before.len() + run;
        let accepted = before.filter(|is_accepted| **is_accepted).count();
        (accepted > 0).then_some((accepted, all))
    }

    pub(super) fn was_accepted_lately(&self, now: Instant) -> bool {
        self.accepted_lately(now).next().is_some()
    }

    fn accepted_lately(&self, now: Instant) -> impl Iterator<Item = u64> {
        let targets = self.accepted_targets.iter();
        targets
            .filter(move |(_, at)| now.saturating_duration_since(*at) < ACCEPTANCE_LASTS)
            .map(|(target, _)| *target)
    }

    /// The kind of hold and the last error of the first run that is not empty.
    pub(super) fn reason(&self) -> Option<(HoldKind, String)> {
        let run = self.runs.iter().find(|run| run.calls > 0)?;
        let kind = if run.refusals * 2 > run.calls {
            HoldKind::Unauthorized
        } else {
            HoldKind::Unavailable
        };
        Some((kind, run.error.clone()))
    }

    /// Remembers the destinations whose votes make the worker doubt.
    pub(super) fn suspect(&mut self) {
        let targets = self.runs.iter().flat_map(|run| &run.targets);
        self.suspects = targets.copied().collect();
    }

    pub(super) fn forget_runs(&mut self) {
        self.runs.fill(Run::default());
    }
}
