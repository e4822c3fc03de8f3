//! Counts the failed calls that say something about the API: votes.
//!
//! - A first attempt has a vote. A retry has one while no message is accepted; else most retries are of messages that can't
//!   succeed.
//! - A call that waits for its receiver has none if it times out.
//! - While messages to other destinations are accepted, a destination has one vote, because it may be at fault itself.
//! - Destinations whose votes made the worker doubt lose their vote if a message to another one is accepted afterwards. They
//!   get it back when a message to them is accepted, or after an hour. So they make the worker doubt once, and not for ever.
//! - Votes count for the host of the API that was called.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Attempt, AttemptKind};
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
/// The highest accepted probability that votes in a row are chance.
const CHANCE: f64 = 1e-6;
/// The number of recent calls by which the worker knows how often calls fail.
const RECENT_CALLS: usize = 64;
/// An accepted message that is older than this is no evidence any more.
pub(super) const ACCEPTANCE_LASTS: Duration = Duration::from_secs(10);
/// The number of destinations that are remembered because messages to them were accepted: more than votes in a row.
const MAX_ACCEPTED_TARGETS: usize = 40;
/// The number of destinations that are remembered because they have no vote, and for how long.
const MAX_EXEMPT: usize = 256;
const EXEMPT_FOR: Duration = Duration::from_hours(1);

/// The votes of one worker, for one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    /// For each host, the votes since a call was answered there as it should.
    runs: Vec<Run>,
    /// Accepted messages (true) and votes, up to the beginning of the present runs.
    recent: VecDeque<bool>,
    /// Destinations to which messages were accepted, the last one at the end.
    accepted_targets: VecDeque<(u64, Instant)>,
    /// The destinations that have made this worker doubt, until a message is accepted.
    suspects: Vec<u64>,
    /// Destinations that have no vote, and since when.
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
            self.recent.push_back(vote);
            if self.recent.len() > RECENT_CALLS {
                self.recent.pop_front();
            }
        }
        self.accepted_targets.retain(|(known, _)| *known != target);
        self.accepted_targets.push_back((target, now));
        if self.accepted_targets.len() > MAX_ACCEPTED_TARGETS {
            self.accepted_targets.pop_front();
        }
        let suspects = std::mem::take(&mut self.suspects);
        self.exempt
            .extend(suspects.into_iter().map(|suspect| (suspect, now)));
        self.exempt.retain(|(known, _)| *known != target);
        let too_many = self.exempt.len().saturating_sub(MAX_EXEMPT);
        self.exempt.drain(..too_many);
    }

    /// Ends the run of a host, because the API works there and knows the app.
    pub(super) fn end_run(&mut self, host: usize) {
        if let Some(run) = self.runs.get_mut(host) {
            *run = Run::default();
        }
    }

    /// A call has failed. It may have no vote.
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
        // Late responses of a host that was left are no evidence about the host that serves now.
        if attempt.host != attempt.serving_host {
            return false;
        }
        let run = self.runs.get(attempt.host).filter(|run| run.calls > 0);
        run.is_some_and(|run| {
            self.count(run, now) >= min_votes.unwrap_or_else(|| self.min_votes(run))
        })
    }

    /// So many votes in a row are no chance. The more calls have failed lately, the more votes it takes.
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

    /// The votes of a run. Where no messages to other destinations are accepted, all calls count, because the app may have
    /// few destinations.
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

    /// How many of the last calls were accepted, and of how many; none if no message was accepted lately.
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

    /// The present votes make the worker doubt.
    pub(super) fn suspect(&mut self) {
        let targets = self.runs.iter().flat_map(|run| &run.targets);
        self.suspects = targets.copied().collect();
    }

    pub(super) fn forget_runs(&mut self) {
        self.runs.fill(Run::default());
    }
}
