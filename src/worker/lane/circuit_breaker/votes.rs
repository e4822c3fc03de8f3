//! Counts votes: failed calls that are evidence against the API.
//!
//! - A first attempt has a vote. A retry has one only while the API accepts no message, because most retries are of
//!   messages that can't succeed.
//! - A call that waits for its recipient and times out has no vote.
//! - While the API accepts messages to other destinations, a destination has one vote, because it may be at fault itself.
//! - If the API accepts a message after a doubt, the destinations whose votes led to the doubt lose their vote for an hour,
//!   or until the API accepts a message to them. Otherwise they would make the worker doubt again and again.
//! - A late response of a host that the worker now avoids has no vote.

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
/// More than a run has destinations ([`MAX_VOTES`]), so that some accepted destinations are outside of the run.
const MAX_ACCEPTED_TARGETS: usize = 40;
const MAX_EXEMPT: usize = 256;
const EXEMPT_FOR: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    /// The votes since the API last accepted, rejected or throttled a message.
    run: Run,
    /// The last accepted messages (true) and votes (false) before the present run.
    recent: VecDeque<bool>,
    /// The last destinations to which the API accepted messages.
    accepted_targets: VecDeque<(u64, Instant)>,
    /// Destinations whose votes led to the present doubt.
    suspects: Vec<u64>,
    /// Destinations that have lost their vote, and since when.
    exempt: VecDeque<(u64, Instant)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Run {
    calls: u32,
    refusals: u32,
    /// The destinations, each once.
    targets: Vec<u64>,
    error: String,
}

impl Votes {
    pub(super) fn accepted(&mut self, target: u64, now: Instant) {
        for _ in 0..self.in_a_row(now) {
            push_bounded(&mut self.recent, false, RECENT_CALLS);
        }
        push_bounded(&mut self.recent, true, RECENT_CALLS);
        self.end_run();
        self.accepted_targets.retain(|(known, _)| *known != target);
        let accepted = &mut self.accepted_targets;
        push_bounded(accepted, (target, now), MAX_ACCEPTED_TARGETS);
        for suspect in self.suspects.drain(..) {
            push_bounded(&mut self.exempt, (suspect, now), MAX_EXEMPT);
        }
        self.exempt.retain(|(known, _)| *known != target);
    }

    pub(super) fn end_run(&mut self) {
        self.run = Run::default();
    }

    pub(super) fn failed(&mut self, attempt: Attempt<'_>, now: Instant) {
        self.exempt
            .retain(|(_, since)| now.saturating_duration_since(*since) < EXEMPT_FOR);
        let has_vote = attempt.may_vote
            && (attempt.kind == AttemptKind::First || !self.was_accepted_lately(now))
            && !self
                .exempt
                .iter()
                .any(|(known, _)| *known == attempt.target);
        if !has_vote {
            return;
        }
        let run = &mut self.run;
        run.calls = run.calls.saturating_add(1);
        run.refusals += u32::from(attempt.outcome == Outcome::Unauthorized);
        attempt.error.clone_into(&mut run.error);
        if run.targets.len() < MAX_VOTES as usize && !run.targets.contains(&attempt.target) {
            run.targets.push(attempt.target);
        }
    }

    /// True if the votes in a row can't be chance. `min_votes` replaces the usual minimum.
    pub(super) fn are_too_many(&self, min_votes: Option<u32>, now: Instant) -> bool {
        let min_votes = min_votes.unwrap_or_else(|| self.min_votes());
        !self.is_empty() && self.in_a_row(now) >= min_votes
    }

    /// Votes in a row that can't be chance. The more calls have failed lately, the more votes it takes.
    fn min_votes(&self) -> u32 {
        let recent = self.recent.iter();
        let (accepted, failed) = recent.fold((0, 0), |(accepted, failed), is_accepted| {
            let more = u32::from(*is_accepted);
            (accepted + more, failed + 1 - more)
        });
        let least = match (self.run.refusals == self.run.calls, accepted) {
            (true, 0) => MIN_FIRST_REFUSALS,
            (true, _) => MIN_REFUSALS,
            (false, _) => MIN_VOTES,
        };
        if accepted == 0 {
            return least;
        }
        let share_that_fails = f64::from(failed + 1) / f64::from(accepted + failed + 2);
        (least..MAX_VOTES)
            .find(|votes| share_that_fails.powf(f64::from(*votes)) <= CHANCE)
            .unwrap_or(MAX_VOTES)
    }

    /// The votes in a row. While the API accepts no message to another destination, all calls count, because the app may
    /// have few destinations.
    pub(super) fn in_a_row(&self, now: Instant) -> u32 {
        let targets = &self.run.targets;
        if self
            .accepted_lately(now)
            .any(|target| !targets.contains(&target))
        {
            u32::try_from(targets.len()).unwrap_or(MAX_VOTES)
        } else {
            self.run.calls
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.run.calls == 0
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

    /// The kind of hold and the last error, if there are votes.
    pub(super) fn reason(&self) -> Option<(HoldKind, String)> {
        let kind = if self.run.refusals * 2 > self.run.calls {
            HoldKind::Unauthorized
        } else {
            HoldKind::Unavailable
        };
        (!self.is_empty()).then(|| (kind, self.run.error.clone()))
    }

    pub(super) fn suspect(&mut self) {
        self.suspects.clone_from(&self.run.targets);
    }
}
