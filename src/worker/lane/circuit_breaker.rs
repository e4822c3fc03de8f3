//! Decides whose fault failed attempts are: the message's or its destination's, this worker's, or the API's. Only the
//! API's fault may hold an app. Pure: the caller passes outcomes, the counters of the other workers, and the time.
//!
//! The states of one worker, for one app:
//!
//! - **ramping**: few calls are open at once. Each accepted message doubles their number, as does a second without a
//!   failure. Left for *serving* when nothing is limited any more.
//! - **serving**: the worker claims as much as there are slots.
//! - **doubting**: too many votes in a row have failed. The worker claims nothing, and waits for the counters of the other
//!   workers. Left for *aside* if messages of others were accepted meanwhile, for *held* if not, and for *ramping* if a
//!   message of its own is accepted.
//! - **aside**: this worker is at fault. It makes one call at a time, the first after ten seconds, and the others serve the
//!   app. Left for *ramping* when one is answered, or when no other worker serves the app.
//! - **held**: the lane is held for all workers, and sends probes. Left for *ramping* when the lane is released.
//!
//! A **vote** is a failed first attempt. While messages are accepted, retries have no vote, because most of them are of
//! messages that can't succeed. Destinations whose votes have led to doubts have no vote until a message to them is
//! accepted, if one to another destination was accepted meanwhile: they make this worker doubt once, and not for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};

/// So many votes in a row are the least that is no chance.
const MIN_VOTES: u32 = 8;
/// The same where the API refused the credentials each time.
const MIN_REFUSALS: u32 = 4;
/// The same where the API has refused each call so far.
const MIN_FIRST_REFUSALS: u32 = 2;
/// The same after a hold, where calls of another worker have ended the hold.
const MIN_WARY: u32 = 4;
/// So many votes in a row are always too many.
const MAX_VOTES: u32 = 32;
/// So likely is it at most that so many votes in a row fail by chance.
const CHANCE: f64 = 1e-5;
/// The votes by which the worker knows how often calls fail.
const RECENT_VOTES: usize = 32;
/// An accepted message says nothing of calls that fail later than this after it.
const ACCEPTANCE_LASTS: Duration = Duration::from_secs(10);
/// While few calls are open, their number also doubles after this time.
const WIDEN_EVERY: Duration = Duration::from_secs(1);
/// So many open calls are as good as no limit.
const WIDE: usize = 1 << 20;
/// A worker that has stepped aside tries for itself this long after, and later less often.
const ASIDE_FIRST_PAUSE: Duration = Duration::from_secs(10);
const ASIDE_LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So many destinations are remembered that failed while others were accepted, for this long.
const MAX_EXEMPT: usize = 256;
const EXEMPT_FOR: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::worker) struct CircuitBreaker {
    state: State,
    /// For each host of the API, the votes since a message was accepted there.
    runs: Vec<Run>,
    /// Votes, true for an accepted message, up to the beginning of the present runs.
    recent: VecDeque<bool>,
    last_accepted_at: Option<Instant>,
    /// The destinations that made this worker doubt, until a message is accepted.
    suspects: Vec<u64>,
    /// Destinations whose failures do not count, because others were accepted.
    exempt: VecDeque<(u64, Instant)>,
    /// What the other workers have had accepted, once that is known.
    others_accepted: Option<u64>,
    /// When messages of other workers were last seen to be accepted.
    others_moved_at: Option<Instant>,
    accepted: u64,
    failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Ramping {
        /// So many calls may be open.
        window: usize,
        widened_at: Instant,
        /// So many votes make the worker doubt, if that is less than usual.
        min_votes: Option<u32>,
    },
    Serving,
    Doubting {
        kind: HoldKind,
        reason: String,
        /// What the others had accepted when the worker began to doubt.
        others_accepted: Option<u64>,
    },
    Aside {
        next_probe_at: Instant,
        pause: Duration,
        reason: String,
    },
    Held,
}

/// Votes in a row, without an accepted message in between.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Run {
    calls: u32,
    refusals: u32,
    /// The calls by destination, for the first destinations.
    targets: Vec<(u64, u32)>,
    /// Of the last one.
    error: String,
}

/// A finished attempt.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Attempt<'a> {
    pub(in crate::worker) outcome: &'a Outcome,
    pub(in crate::worker) error: &'a str,
    /// The place of the API's host that was called, and of the one that the next calls go to.
    pub(in crate::worker) host: usize,
    pub(in crate::worker) serving_host: usize,
    /// The destination or channel, as a hash.
    pub(in crate::worker) target: u64,
    pub(in crate::worker) is_first: bool,
    /// The lane is held, and this is its probe.
    pub(in crate::worker) is_probe: bool,
    /// The message waits for its receiver, and no response came in time, or a 408.
    pub(in crate::worker) is_ack_timeout: bool,
    /// The API answered 429, and the destination explains it.
    pub(in crate::worker) is_throttled_by_destination: bool,
}

/// The decision about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Verdict {
    pub(in crate::worker) is_charged: bool,
    /// None if the message was accepted.
    pub(in crate::worker) fault: Option<Fault>,
    pub(in crate::worker) evidence: Option<String>,
    pub(in crate::worker) transition: Transition,
}

/// The change that follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Transition {
    None,
    /// The probe of the held lane was answered.
    Release,
    /// The probe of the held lane has failed.
    Extend(HoldKind),
    /// This worker begins to doubt.
    Doubt,
    /// This worker comes back from aside.
    Return,
    /// A 429 cuts the rate of the app.
    Throttle,
}

/// The decision of a worker that doubts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) enum Decision {
    Hold {
        kind: HoldKind,
        reason: String,
    },
    StepAside {
        reason: String,
    },
    /// No other worker serves the app any more, so this one does again.
    Return,
}

/// How many messages a worker may claim now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Allowance {
    /// So many, beside those in flight.
    Claim(usize),
    /// None before this time, unless the state changes.
    Wait(Instant),
}

impl CircuitBreaker {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            state: State::ramping(now, None),
            runs: Vec::new(),
            recent: VecDeque::new(),
            last_accepted_at: None,
            suspects: Vec::new(),
            exempt: VecDeque::new(),
            others_accepted: None,
            others_moved_at: None,
            accepted: 0,
            failed: 0,
        }
    }

    /// How many messages may be claimed at `now`, while `in_flight` are.
    pub(in crate::worker) fn allowance(&mut self, now: Instant, in_flight: usize) -> Allowance {
        match &mut self.state {
            State::Serving => Allowance::Claim(WIDE),
            State::Ramping {
                window, widened_at, ..
            } => {
                if self.runs.iter().all(|run| run.calls == 0)
                    && now.saturating_duration_since(*widened_at) >= WIDEN_EVERY
                {
                    *window = (*window * 2).min(WIDE);
                    *widened_at = now;
                }
                match window.saturating_sub(in_flight) {
                    0 => Allowance::Wait(now + WIDEN_EVERY),
                    free => Allowance::Claim(free),
                }
            }
            State::Doubting { .. } => Allowance::Wait(now + WIDEN_EVERY),
            State::Aside { next_probe_at, .. } if now < *next_probe_at => {
                Allowance::Wait(*next_probe_at)
            }
            State::Aside { .. } if in_flight > 0 => Allowance::Wait(now + WIDEN_EVERY),
            State::Aside { .. } | State::Held => Allowance::Claim(1),
        }
    }

    /// Takes in a finished attempt, and decides whose fault it is.
    pub(in crate::worker) fn observe(&mut self, attempt: Attempt<'_>, now: Instant) -> Verdict {
        match attempt.outcome {
            Outcome::Accepted(_) => {
                let transition = self.accepted(attempt, now);
                Verdict {
                    is_charged: true,
                    fault: None,
                    evidence: None,
                    transition,
                }
            }
            // The API is there and knows the app: that says nothing against it.
            Outcome::Rejected => {
                self.failed += 1;
                let transition = self.answered(attempt, now);
                Verdict::failed(
                    true,
                    Fault::Message,
                    "the API rejects the message",
                    transition,
                )
            }
            Outcome::Throttled => {
                self.failed += 1;
                let transition = match self.answered(attempt, now) {
                    Transition::None if !attempt.is_throttled_by_destination => {
                        Transition::Throttle
                    }
                    other => other,
                };
                if attempt.is_throttled_by_destination {
                    let evidence =
                        "the API throttles this destination, and accepts messages to others";
                    Verdict::failed(true, Fault::Destination, evidence, transition)
                } else {
                    let evidence = "the API allows the app no more calls at present";
                    Verdict::failed(false, Fault::Budget, evidence, transition)
                }
            }
            Outcome::Transient | Outcome::Unserved | Outcome::Unauthorized | Outcome::Ambiguous => {
                self.failed += 1;
                self.failed(attempt, now)
            }
        }
    }

    fn accepted(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.accepted += 1;
        self.last_accepted_at = Some(now);
        if let Some(run) = self.runs.get_mut(attempt.host) {
            let votes = std::mem::take(run).votes();
            for vote in std::iter::repeat_n(false, votes as usize).chain([true]) {
                self.recent.push_back(vote);
                if self.recent.len() > RECENT_VOTES {
                    self.recent.pop_front();
                }
            }
        }
        self.exempt.retain(|(target, _)| *target != attempt.target);
        for suspect in std::mem::take(&mut self.suspects) {
            if suspect != attempt.target {
                self.exempt.push_back((suspect, now));
            }
        }
        let too_many = self.exempt.len().saturating_sub(MAX_EXEMPT);
        self.exempt.drain(..too_many);
        if let State::Ramping {
            window,
            widened_at,
            min_votes,
        } = &mut self.state
        {
            *window = window.saturating_mul(2);
            *widened_at = now;
            *min_votes = None;
            if *window >= WIDE {
                self.state = State::Serving;
            }
            return Transition::None;
        }
        self.answered(attempt, now)
    }

    /// The API has answered as it should: it is there, and knows the app.
    fn answered(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        if let Some(run) = self.runs.get_mut(attempt.host) {
            *run = Run::default();
        }
        match self.state {
            State::Ramping { .. } | State::Serving => Transition::None,
            State::Held if !attempt.is_probe => Transition::None,
            State::Held => {
                self.state = State::ramping(now, None);
                Transition::Release
            }
            State::Doubting { .. } => {
                self.state = State::ramping(now, None);
                Transition::None
            }
            State::Aside { .. } => {
                self.state = State::ramping(now, None);
                Transition::Return
            }
        }
    }

    fn failed(&mut self, attempt: Attempt<'_>, now: Instant) -> Verdict {
        let kind = match attempt.outcome {
            Outcome::Unauthorized => HoldKind::Unauthorized,
            _ => HoldKind::Unavailable,
        };
        match &mut self.state {
            _ if attempt.is_probe => {
                let evidence = "the app is held, and this was its probe";
                Verdict::failed(false, Fault::Api, evidence, Transition::Extend(kind))
            }
            State::Held => {
                let evidence = "the app is held: no message of any worker was accepted";
                Verdict::failed(false, Fault::Api, evidence, Transition::None)
            }
            State::Aside {
                next_probe_at,
                pause,
                ..
            } => {
                *next_probe_at = now + *pause;
                *pause = (*pause * 2).min(ASIDE_LONGEST_PAUSE);
                let evidence = "calls of this worker fail, while messages of others are accepted";
                Verdict::failed(false, Fault::Worker, evidence, Transition::None)
            }
            State::Doubting { .. } => {
                let evidence = "many calls of this worker have failed in a row";
                Verdict::failed(false, Fault::Unclear, evidence, Transition::None)
            }
            State::Ramping { .. } | State::Serving => {
                self.vote(attempt, now);
                let known = self.known_acceptance(now);
                let transition = if self.is_too_much(attempt) {
                    self.doubt(attempt.error, kind);
                    Transition::Doubt
                } else {
                    Transition::None
                };
                match known {
                    _ if matches!(attempt.outcome, Outcome::Unserved) => {
                        let evidence = "the call did not reach the API";
                        Verdict::failed(false, Fault::Unclear, evidence, transition)
                    }
                    Some(evidence) => Verdict::failed(true, Fault::Message, &evidence, transition),
                    None => {
                        let evidence = "no other message was accepted in the last ten seconds";
                        Verdict::failed(false, Fault::Unclear, evidence, transition)
                    }
                }
            }
        }
    }
}

/// Votes.
impl CircuitBreaker {
    fn vote(&mut self, attempt: Attempt<'_>, now: Instant) {
        self.exempt
            .retain(|(_, since)| now.saturating_duration_since(*since) < EXEMPT_FOR);
        let is_exempt = self
            .exempt
            .iter()
            .any(|(target, _)| *target == attempt.target);
        let has_vote = attempt.is_first || !self.was_accepted_lately(now);
        if !has_vote || attempt.is_ack_timeout || is_exempt {
            return;
        }
        if self.runs.len() <= attempt.host {
            self.runs.resize_with(attempt.host + 1, Run::default);
        }
        let is_refusal = *attempt.outcome == Outcome::Unauthorized;
        self.runs[attempt.host].add(attempt.target, is_refusal, attempt.error);
    }

    /// Whether so many votes in a row can't be chance.
    fn is_too_much(&self, attempt: Attempt<'_>) -> bool {
        // Calls that were under way to a host that was left say nothing of the host that serves now.
        let Some(run) = self.runs.get(attempt.host) else {
            return false;
        };
        attempt.host == attempt.serving_host && run.calls > 0 && run.votes() >= self.min_votes(run)
    }

    /// So many votes in a row are no chance: the more calls have failed lately, the more votes it takes.
    fn min_votes(&self, run: &Run) -> u32 {
        let accepted = self.recent.iter().filter(|is_accepted| **is_accepted);
        let accepted = u32::try_from(accepted.count()).unwrap_or(0);
        let all = u32::try_from(self.recent.len()).unwrap_or(0);
        let is_refused = run.refusals == run.calls;
        let least = match &self.state {
            State::Ramping {
                min_votes: Some(min_votes),
                ..
            } => *min_votes,
            _ if is_refused && accepted == 0 => MIN_FIRST_REFUSALS,
            _ if is_refused => MIN_REFUSALS,
            _ => MIN_VOTES,
        };
        if accepted == 0 {
            return least;
        }
        let share = f64::from(all - accepted + 1) / f64::from(all + 2);
        (least..MAX_VOTES)
            .find(|votes| share.powf(f64::from(*votes)) <= CHANCE)
            .unwrap_or(MAX_VOTES)
    }

    fn doubt(&mut self, reason: &str, kind: HoldKind) {
        let targets = self.runs.iter().flat_map(|run| &run.targets);
        self.suspects = targets.map(|(target, _)| *target).collect();
        self.state = State::Doubting {
            kind,
            reason: reason.to_owned(),
            others_accepted: None,
        };
    }

    fn was_accepted_lately(&self, now: Instant) -> bool {
        self.last_accepted_at
            .is_some_and(|at| now.saturating_duration_since(at) < ACCEPTANCE_LASTS)
    }

    /// The evidence that the API accepts messages at present, if there is any.
    fn known_acceptance(&self, now: Instant) -> Option<String> {
        let lasts = |at: Instant| now.saturating_duration_since(at) < ACCEPTANCE_LASTS;
        let run: u32 = self.runs.iter().map(Run::votes).sum();
        let run = usize::try_from(run).unwrap_or(usize::MAX);
        let before = self.recent.iter().rev();
        let before: Vec<bool> = before
            .take(RECENT_VOTES.saturating_sub(run))
            .copied()
            .collect();
        let accepted = before.iter().filter(|is_accepted| **is_accepted).count();
        let all = before.len() + run;
        if self.was_accepted_lately(now) && accepted > 0 && accepted * 2 >= all {
            return Some(format!(
                "the API has accepted {accepted} of the last {all} messages of this worker"
            ));
        }
        let others = run <= 1 && self.others_moved_at.is_some_and(lasts);
        others.then(|| "the API accepts messages of other workers".to_owned())
    }
}

/// The lane, and the other workers.
impl CircuitBreaker {
    /// A claim has found that nothing is due. A worker whose only calls have failed needs no more votes.
    pub(in crate::worker) fn nothing_due(&mut self, now: Instant) -> Transition {
        let is_known = self.was_accepted_lately(now);
        let run = self.runs.iter().find(|run| run.calls > 0);
        match (&self.state, run) {
            (State::Ramping { .. } | State::Serving, Some(run)) if !is_known => {
                let (kind, error) = (run.kind(), run.error.clone());
                self.doubt(&error, kind);
                Transition::Doubt
            }
            _ => Transition::None,
        }
    }

    /// This worker can't sign in, whatever the API says.
    pub(in crate::worker) fn no_credentials(
        &mut self,
        error: &str,
        is_probe: bool,
        now: Instant,
    ) -> Transition {
        match &mut self.state {
            _ if is_probe => Transition::Extend(HoldKind::Unauthorized),
            State::Ramping { .. } | State::Serving => {
                self.doubt(error, HoldKind::Unauthorized);
                Transition::Doubt
            }
            State::Aside {
                next_probe_at,
                pause,
                ..
            } => {
                *next_probe_at = now + *pause;
                Transition::None
            }
            State::Doubting { .. } | State::Held => Transition::None,
        }
    }

    /// Takes in how many messages of the other workers the API has accepted, and how many others serve the app.
    pub(in crate::worker) fn observe_others(
        &mut self,
        accepted: u64,
        serving: u32,
        now: Instant,
    ) -> Option<Decision> {
        if self.others_accepted.is_some_and(|before| accepted > before) {
            self.others_moved_at = Some(now);
        }
        self.others_accepted = Some(accepted);
        match &mut self.state {
            State::Doubting {
                kind,
                reason,
                others_accepted,
            } => match others_accepted {
                None if serving > 0 => {
                    *others_accepted = Some(accepted);
                    None
                }
                Some(before) if serving > 0 && accepted > *before => Some(Decision::StepAside {
                    reason: reason.clone(),
                }),
                _ => Some(Decision::Hold {
                    kind: *kind,
                    reason: reason.clone(),
                }),
            },
            State::Aside { .. } if serving == 0 => Some(Decision::Return),
            _ => None,
        }
    }

    pub(in crate::worker) fn step_aside(&mut self, reason: String, now: Instant) {
        self.forget_runs();
        self.state = State::Aside {
            next_probe_at: now + ASIDE_FIRST_PAUSE,
            pause: ASIDE_FIRST_PAUSE,
            reason,
        };
    }

    /// Serves the app again, carefully.
    pub(in crate::worker) fn return_to_app(&mut self, now: Instant) {
        self.forget_runs();
        self.state = State::ramping(now, Some(MIN_WARY));
    }

    /// The lane is held, by this worker or by another one.
    pub(in crate::worker) fn lane_held(&mut self) {
        self.forget_runs();
        self.state = State::Held;
    }

    /// The lane is not held at present.
    pub(in crate::worker) fn lane_free(&mut self, now: Instant) {
        if self.state == State::Held {
            self.return_to_app(now);
        }
    }

    /// The lane can't be held again so soon. Until it can, each vote makes the worker doubt, so that it makes about one
    /// call a second.
    pub(in crate::worker) fn hold_refused(&mut self, now: Instant) {
        self.state = State::ramping(now, Some(1));
    }

    /// Messages that the API has accepted from this worker.
    pub(in crate::worker) fn accepted_messages(&self) -> u64 {
        self.accepted
    }

    pub(in crate::worker) fn failed_attempts(&self) -> u64 {
        self.failed
    }

    pub(in crate::worker) fn is_doubting(&self) -> bool {
        matches!(self.state, State::Doubting { .. })
    }

    /// Why this worker has stepped aside, if it has.
    pub(in crate::worker) fn aside_reason(&self) -> Option<&str> {
        match &self.state {
            State::Aside { reason, .. } => Some(reason),
            _ => None,
        }
    }

    fn forget_runs(&mut self) {
        self.runs.fill(Run::default());
    }
}

impl State {
    fn ramping(now: Instant, min_votes: Option<u32>) -> Self {
        Self::Ramping {
            window: 1,
            widened_at: now,
            min_votes,
        }
    }
}

impl Run {
    fn add(&mut self, target: u64, is_refusal: bool, error: &str) {
        error.clone_into(&mut self.error);
        self.calls = self.calls.saturating_add(1);
        self.refusals = self.refusals.saturating_add(is_refusal.into());
        if let Some((_, calls)) = self.targets.iter_mut().find(|(known, _)| *known == target) {
            *calls = calls.saturating_add(1);
        } else if self.targets.len() < MAX_VOTES as usize {
            self.targets.push((target, 1));
        }
    }

    /// The calls, but those of the destination that has most of them as one: it may be at fault itself. Where no other
    /// was called, all of them.
    fn votes(&self) -> u32 {
        let most = self.targets.iter().map(|(_, calls)| *calls).max();
        match most {
            Some(most) if self.targets.len() > 1 => self.calls - most + 1,
            _ => self.calls,
        }
    }

    fn kind(&self) -> HoldKind {
        if self.refusals * 2 > self.calls {
            HoldKind::Unauthorized
        } else {
            HoldKind::Unavailable
        }
    }
}

impl Verdict {
    fn failed(is_charged: bool, fault: Fault, evidence: &str, transition: Transition) -> Self {
        Self {
            is_charged,
            fault: Some(fault),
            evidence: Some(evidence.to_owned()),
            transition,
        }
    }
}
