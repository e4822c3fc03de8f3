//! Decides whose fault a failed attempt is: the message's or its destination's, this worker's, or the API's. Only a fault
//! of the API may hold an app for all workers. Pure: the caller passes attempts, the counters of the other workers, and
//! the time.
//!
//! The states of one worker, for one app:
//!
//! - **serving**: the worker makes one call at first. Each second without a failed call doubles the number of open calls. The
//!   first accepted message after a start removes this limit. After a doubt or a hold, each accepted message doubles the
//!   number, because the API may have just recovered.
//! - **doubting**: too many calls in a row have failed (`votes.rs` counts them). The worker claims nothing, and compares
//!   the counters of the other workers. If the API accepts none of their messages, the worker holds the lane for all, or
//!   is *serving* if the last hold ended less than ten seconds ago. If the API accepts one, the worker is *serving*, and
//!   *aside* if its next calls fail, too. An accepted message of its own also leads to *serving*.
//! - **aside**: this worker is at fault, and other workers serve the app. It makes one call at a time, the first after a
//!   second, and doubles the pause up to thirty. *Serving* follows when the API accepts, rejects or throttles a message,
//!   or when no other worker serves the app. A worker steps aside at most once in ten seconds.
//! - **held**: the lane is held for all workers, and sends probes. A claim that finds a hold leads here from each other
//!   state. *Serving* follows when the lane is released.

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod throttled;
mod votes;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};
use throttled::ThrottledDestinations;
use votes::{ACCEPTANCE_LASTS, Votes};

/// Votes that make a worker doubt after it has returned to *serving*, until the API accepts one of its messages.
const MIN_UNPROVEN: u32 = 4;
/// Votes that make a worker doubt a second time, after the API accepted messages of other workers.
const MIN_BEFORE_ASIDE: u32 = 2;
/// Reports that a doubting worker reads after its first one. Each worker reports once a second, so a message that the API
/// accepts from another worker may show in the second report only.
const REPORTS_TO_WAIT: u32 = 3;
/// Workers report once a second. A slow database delays reports.
const LONGEST_REPORT_GAP: Duration = Duration::from_millis(2_500);
const WIDEN_EVERY: Duration = Duration::from_secs(1);
/// More than any worker can have open.
const WIDE: usize = 1 << 20;
/// As short as the first pause of a held lane. An outage that ends for all workers at slightly different times may look like
/// the fault of the last one, which then returns at once.
const ASIDE_FIRST_PAUSE: Duration = Duration::from_secs(1);
const ASIDE_LONGEST_PAUSE: Duration = Duration::from_secs(30);
const BETWEEN_ASIDES: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    First,
    Retry,
    /// The one attempt that a held lane makes at a time.
    Probe,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) error: &'a str,
    /// False for a late response of a host that the worker has left, and for a recipient that did not acknowledge in time.
    pub(crate) may_vote: bool,
    /// Hash of the destination or channel.
    pub(crate) target: u64,
    pub(crate) kind: AttemptKind,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) is_charged: bool,
    /// None if the message was accepted.
    pub(crate) fault: Option<Fault>,
    pub(crate) evidence: Option<String>,
    pub(crate) transition: Transition,
}

/// The change that follows from an attempt or from a report of the other workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Transition {
    #[default]
    None,
    Doubt,
    /// Hold the lane for all workers. After a failed probe, extend the hold.
    Hold(HoldKind),
    /// The API accepted, rejected or throttled the probe of the held lane.
    Release,
    StepAside,
    /// This worker was aside, and serves the app again.
    Return,
    Throttle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    Claim(usize),
    /// Claim nothing before this time, unless the state changes.
    Wait(Instant),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CircuitBreaker {
    state: State,
    votes: Votes,
    throttled_destinations: ThrottledDestinations,
    /// The error that made this worker doubt, until it serves again.
    pub(crate) reason: String,
    stepped_aside_at: Option<Instant>,
    /// Accepted messages of the other workers, and when this worker read the number.
    others_accepted: Option<(u64, Instant)>,
    others_moved_at: Option<Instant>,
    pub(crate) accepted_messages: u64,
    pub(crate) failed_attempts: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Serving {
        max_open_calls: usize,
        widened_at: Instant,
        /// The worker has not doubted and was not held. If such a worker doubled its calls, a rolling restart would take the
        /// fleet to a few calls a second at a slow API.
        is_new: bool,
        /// Votes that make the worker doubt, instead of the usual number.
        min_votes: Option<u32>,
    },
    Doubting {
        kind: HoldKind,
        /// Reports whose number of accepted messages can be compared with the one before.
        reports: u32,
        /// True if the worker doubts for the second time, after it has tried again.
        is_confirmed: bool,
    },
    Aside {
        next_probe_at: Instant,
        pause: Duration,
    },
    Held,
}

impl State {
    fn serving(now: Instant, is_new: bool, min_votes: Option<u32>) -> Self {
        Self::Serving {
            max_open_calls: 1,
            widened_at: now,
            is_new,
            min_votes,
        }
    }

    /// The worker has doubted, and makes a few more calls before it steps aside.
    fn is_before_aside(&self) -> bool {
        matches!(self, Self::Serving { min_votes, .. } if *min_votes == Some(MIN_BEFORE_ASIDE))
    }
}

impl CircuitBreaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::serving(now, true, None),
            votes: Votes::default(),
            throttled_destinations: ThrottledDestinations::default(),
            reason: String::new(),
            stepped_aside_at: None,
            others_accepted: None,
            others_moved_at: None,
            accepted_messages: 0,
            failed_attempts: 0,
        }
    }

    /// How many messages the worker may claim at `now`, while `in_flight` are in flight.
    pub(crate) fn allowance(&mut self, now: Instant, in_flight: usize) -> Allowance {
        let later = Allowance::Wait(now + WIDEN_EVERY);
        match &mut self.state {
            State::Serving {
                max_open_calls,
                widened_at,
                ..
            } => {
                let is_quiet = now.saturating_duration_since(*widened_at) >= WIDEN_EVERY;
                if *max_open_calls < WIDE && is_quiet && self.votes.is_empty() {
                    *max_open_calls *= 2;
                    *widened_at = now;
                }
                match max_open_calls.saturating_sub(in_flight) {
                    0 => later,
                    free => Allowance::Claim(free),
                }
            }
            State::Aside { next_probe_at, .. } if now < *next_probe_at => {
                Allowance::Wait(*next_probe_at)
            }
            State::Aside { .. } if in_flight > 0 => later,
            State::Doubting { .. } => later,
            State::Aside { .. } | State::Held => Allowance::Claim(1),
        }
    }

    pub(crate) fn observe(&mut self, attempt: Attempt<'_>, now: Instant) -> Verdict {
        let (fault, evidence, transition) = match attempt.outcome {
            Outcome::MessageSent | Outcome::MessageDelivered | Outcome::MessageOffline => {
                return Verdict {
                    is_charged: true,
                    transition: self.accepted(attempt, now),
                    ..Verdict::default()
                };
            }
            Outcome::Rejected => {
                let transition = self.api_works(attempt, now);
                let evidence = "the API rejects the message".to_owned();
                (Fault::Message, evidence, transition)
            }
            Outcome::Throttled => self.throttled(attempt, now),
            Outcome::Transient | Outcome::Unserved | Outcome::Unauthorized | Outcome::Ambiguous => {
                self.failed(attempt, now)
            }
        };
        self.failed_attempts += 1;
        Verdict {
            is_charged: matches!(fault, Fault::Message | Fault::Destination),
            fault: Some(fault),
            evidence: Some(evidence),
            transition,
        }
    }

    fn accepted(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.accepted_messages += 1;
        self.votes.accepted(attempt.target, now);
        self.throttled_destinations.accepted(attempt.target);
        if let State::Serving {
            max_open_calls,
            widened_at,
            is_new,
            min_votes,
        } = &mut self.state
        {
            *min_votes = None;
            if *is_new {
                *max_open_calls = WIDE;
            } else if *max_open_calls < WIDE {
                *max_open_calls *= 2;
                *widened_at = now;
            }
        }
        self.api_works(attempt, now)
    }

    /// The API accepted, rejected or throttled a message, so it works and knows the app.
    fn api_works(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.votes.end_run();
        let transition = match self.state {
            State::Serving { .. } => return Transition::None,
            State::Held if attempt.kind != AttemptKind::Probe => return Transition::None,
            State::Held => Transition::Release,
            State::Doubting { .. } => Transition::None,
            State::Aside { .. } => Transition::Return,
        };
        self.serve(now, None);
        transition
    }

    fn throttled(&mut self, attempt: Attempt<'_>, now: Instant) -> (Fault, String, Transition) {
        let transition = self.api_works(attempt, now);
        if self.throttled_destinations.is_at_fault(attempt.target) {
            let evidence = "the API throttles this destination, and accepts messages to others";
            return (Fault::Destination, evidence.into(), transition);
        }
        let evidence = "the API allows the app no more calls at present".to_owned();
        match transition {
            Transition::None => (Fault::Budget, evidence, Transition::Throttle),
            other => (Fault::Budget, evidence, other),
        }
    }

    fn failed(&mut self, attempt: Attempt<'_>, now: Instant) -> (Fault, String, Transition) {
        let kind = match attempt.outcome {
            Outcome::Unauthorized => HoldKind::Unauthorized,
            _ => HoldKind::Unavailable,
        };
        let is_probe = attempt.kind == AttemptKind::Probe;
        if let Some((fault, evidence, transition)) = self.judge_by_state(kind, is_probe, now) {
            return (fault, evidence.into(), transition);
        }
        self.votes.failed(attempt, now);
        let (fault, evidence) = self.judge_by_acceptance(attempt.outcome, now);
        let min_votes = match self.state {
            State::Serving { min_votes, .. } => min_votes,
            State::Doubting { .. } | State::Aside { .. } | State::Held => None,
        };
        let transition = if self.votes.are_too_many(min_votes, now) {
            self.doubt(attempt.error.to_owned(), kind)
        } else {
            Transition::None
        };
        (fault, evidence, transition)
    }

    /// Judges a failure of a probe, or of a worker that is not *serving*. None: the worker is *serving*.
    fn judge_by_state(
        &mut self,
        kind: HoldKind,
        is_probe: bool,
        now: Instant,
    ) -> Option<(Fault, &'static str, Transition)> {
        if is_probe {
            let evidence = "the app is held, and this was its probe";
            return Some((Fault::Api, evidence, Transition::Hold(kind)));
        }
        let (fault, evidence) = match &mut self.state {
            State::Serving { .. } => return None,
            State::Held => (Fault::Api, "the app is held"),
            State::Aside {
                next_probe_at,
                pause,
            } => {
                *next_probe_at = now + *pause;
                *pause = (*pause * 2).min(ASIDE_LONGEST_PAUSE);
                (Fault::Worker, "only calls of this worker fail")
            }
            State::Doubting { .. } => (Fault::Unclear, "many calls of this worker fail"),
        };
        Some((fault, evidence, Transition::None))
    }

    /// The message is at fault only if the API accepts others at present.
    fn judge_by_acceptance(&self, outcome: Outcome, now: Instant) -> (Fault, String) {
        if outcome == Outcome::Unserved {
            return (Fault::Unclear, "the call did not reach the API".into());
        }
        if let Some((accepted, all)) = self.votes.accepted_share(now)
            && accepted * 2 >= all
        {
            let evidence = format!(
                "the API has accepted {accepted} of the last {all} messages of this worker"
            );
            return (Fault::Message, evidence);
        }
        let lasts = |at: Instant| now.saturating_duration_since(at) < ACCEPTANCE_LASTS;
        let evidence = if !self.others_moved_at.is_some_and(lasts) {
            "few or no messages were accepted in the last ten seconds"
        } else if self.accepted_messages > 0 && self.votes.in_a_row(now) <= 1 {
            let evidence = "the API accepts messages of other workers";
            return (Fault::Message, evidence.into());
        } else {
            // The API accepted nothing of this worker, or several of its calls failed.
            "the API accepts messages of other workers, so this worker may be at fault"
        };
        (Fault::Unclear, evidence.into())
    }

    /// A claim found that nothing is due. If the worker's only calls have failed, it gets no more votes, so it doubts now.
    pub(crate) fn nothing_due(&mut self, now: Instant) -> Transition {
        let was_accepted = self.votes.was_accepted_lately(now);
        match (&self.state, self.votes.reason()) {
            (State::Serving { .. }, Some((kind, reason))) if !was_accepted => {
                self.doubt(reason, kind)
            }
            _ => Transition::None,
        }
    }

    /// This worker can't read its credentials, so it can't sign any request.
    pub(crate) fn no_credentials(
        &mut self,
        error: &str,
        is_probe: bool,
        now: Instant,
    ) -> Transition {
        let kind = HoldKind::Unauthorized;
        match self.judge_by_state(kind, is_probe, now) {
            Some((_, _, transition)) => transition,
            None => self.doubt(error.to_owned(), kind),
        }
    }

    fn doubt(&mut self, reason: String, kind: HoldKind) -> Transition {
        self.votes.suspect();
        self.reason = reason;
        self.state = State::Doubting {
            kind,
            reports: 0,
            is_confirmed: self.state.is_before_aside(),
        };
        Transition::Doubt
    }

    /// Applies a report: how many messages of the other workers the API has accepted, and how many of them serve the app.
    pub(crate) fn observe_others(
        &mut self,
        accepted: u64,
        serving: u32,
        now: Instant,
    ) -> Transition {
        let age = |at: Instant| now.saturating_duration_since(at);
        let last = self.others_accepted.replace((accepted, now));
        // An idle worker does not read the counters, so a difference from an old reading may itself be old.
        if last.is_some_and(|(before, at)| accepted > before && age(at) < ACCEPTANCE_LASTS) {
            self.others_moved_at = Some(now);
        }
        // After a gap, a report does not show whether the API accepted those messages during this worker's failures, or only
        // after an outage.
        let has_gap = last.is_some_and(|(_, at)| age(at) > LONGEST_REPORT_GAP);
        let stepped_aside_at = self.stepped_aside_at;
        let may_step_aside =
            !has_gap && stepped_aside_at.is_none_or(|at| age(at) >= BETWEEN_ASIDES);
        match &mut self.state {
            State::Doubting {
                kind,
                reports,
                is_confirmed,
            } => {
                let before = last.filter(|_| *reports > 0);
                let before = before.map_or(accepted, |(accepted, _)| accepted);
                // retire_worker() deletes the counters of a worker that stops. Taken for an API that accepts nothing, the smaller
                // sum made this worker hold the app for all. The next report shows little, so the worker reads one more.
                if accepted >= before {
                    *reports += 1;
                } else {
                    *reports = reports.saturating_sub(1);
                }
                let is_late = *reports > REPORTS_TO_WAIT;
                if serving == 0 || accepted <= before {
                    let is_known = serving == 0 || is_late;
                    return if is_known {
                        Transition::Hold(*kind)
                    } else {
                        Transition::None
                    };
                }
                // A later report may show messages that the API accepted only after an outage for all workers.
                if *is_confirmed && may_step_aside && !is_late {
                    self.step_aside(now);
                    return Transition::StepAside;
                }
                // The fault may have ended for other workers before it ended for this one.
                self.serve(now, Some(MIN_BEFORE_ASIDE));
                Transition::None
            }
            State::Aside { .. } if serving == 0 => {
                self.serve(now, Some(MIN_UNPROVEN));
                Transition::Return
            }
            State::Serving { .. } | State::Aside { .. } | State::Held => Transition::None,
        }
    }

    fn step_aside(&mut self, now: Instant) {
        self.stepped_aside_at = Some(now);
        self.votes.end_run();
        self.state = State::Aside {
            next_probe_at: now + ASIDE_FIRST_PAUSE,
            pause: ASIDE_FIRST_PAUSE,
        };
    }

    fn serve(&mut self, now: Instant, min_votes: Option<u32>) {
        self.votes.end_run();
        self.reason.clear();
        self.state = State::serving(now, false, min_votes);
    }

    pub(crate) fn lane_held(&mut self) {
        self.votes.end_run();
        self.state = State::Held;
    }

    pub(crate) fn lane_free(&mut self, now: Instant) {
        if self.state == State::Held {
            self.serve(now, Some(MIN_UNPROVEN));
        }
    }

    /// The last hold ended less than ten seconds ago, so the lane can't be held yet.
    pub(crate) fn hold_refused(&mut self, now: Instant) {
        self.serve(now, Some(MIN_UNPROVEN));
    }

    pub(crate) fn is_doubting(&self) -> bool {
        matches!(self.state, State::Doubting { .. }) || self.state.is_before_aside()
    }

    pub(crate) fn aside_reason(&self) -> Option<&str> {
        matches!(self.state, State::Aside { .. }).then_some(&self.reason)
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}
