//! Decides whose fault a failed attempt is: the message's or its destination's, this worker's, or the API's. Only a fault
//! of the API may hold an app for all workers. Pure: the caller passes attempts, the counters of the other workers, and
//! the time.
//!
//! The states of one worker, for one app:
//!
//! - **ramping**: the worker makes one call at first. Each accepted message doubles the number of open calls, and so does a
//!   second without a failed call. *Serving* follows when the number is no limit any more.
//! - **serving**: the worker claims as much as there are slots.
//! - **doubting**: too many calls in a row have failed (`votes.rs` counts them). The worker claims nothing, and compares
//!   the counters of the other workers. If the API accepts none of their messages, the worker holds the lane for all, or
//!   is *ramping* if the last hold ended less than ten seconds ago. If the API accepts one, the worker is *ramping*, and
//!   *aside* if its next calls fail, too. An accepted message of its own also leads to *ramping*.
//! - **aside**: this worker is at fault, and other workers serve the app. It makes one call at a time, the first after a
//!   second, and doubles the pause up to thirty. *Ramping* follows when the API accepts, rejects or throttles a message,
//!   or when no other worker serves the app. A worker steps aside at most once in ten seconds.
//! - **held**: the lane is held for all workers, and sends probes. A claim that finds a hold leads here from each other
//!   state. *Ramping* follows when the lane is released.

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod throttled;
mod verdict;
mod votes;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};
use throttled::ThrottledDestinations;
pub(crate) use verdict::{Allowance, Attempt, AttemptKind, Decision, Transition, Verdict};
use votes::{ACCEPTANCE_LASTS, Votes};

/// Votes that make a worker doubt that serves the app again, and of which no message was accepted since.
const MIN_UNPROVEN: u32 = 4;
/// Votes that make a worker doubt a second time, after the API accepted messages of other workers.
const MIN_BEFORE_ASIDE: u32 = 2;
/// Reports that a doubting worker reads after its first one. Each worker reports once a second, so a message that the API
/// accepts from another worker may show in the second report only.
const REPORTS_TO_WAIT: u32 = 3;
/// Workers report once a second. A slow database delays reports.
const LONGEST_REPORT_GAP: Duration = Duration::from_millis(2_500);
const WIDEN_EVERY: Duration = Duration::from_secs(1);
/// A number of open calls that no worker reaches.
const WIDE: usize = 1 << 20;
/// As short as the first pause of a held lane. An outage that ends for all workers at slightly different times may look like
/// the fault of the last one, which then returns at once.
const ASIDE_FIRST_PAUSE: Duration = Duration::from_secs(1);
const ASIDE_LONGEST_PAUSE: Duration = Duration::from_secs(30);
const BETWEEN_ASIDES: Duration = Duration::from_secs(10);

type Judgement = (Fault, Cow<'static, str>, Transition);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CircuitBreaker {
    state: State,
    votes: Votes,
    throttled_destinations: ThrottledDestinations,
    stepped_aside_at: Option<Instant>,
    /// Accepted messages of the other workers, and when this worker read the number.
    others_accepted: Option<(u64, Instant)>,
    /// When that number last grew.
    others_moved_at: Option<Instant>,
    pub(crate) accepted_messages: u64,
    pub(crate) failed_attempts: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Ramping {
        max_open_calls: usize,
        widened_at: Instant,
        /// How few votes make the worker doubt, if not the usual number.
        min_votes: Option<u32>,
    },
    Serving,
    Doubting {
        kind: HoldKind,
        reason: String,
        /// Accepted messages of the other workers in the first report after the doubt began.
        others_accepted: Option<u64>,
        /// Reports since the doubt began.
        reports: u32,
        /// The worker has doubted before, and has tried again since.
        is_confirmed: bool,
    },
    Aside(Aside),
    Held,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Aside {
    next_probe_at: Instant,
    pause: Duration,
    reason: String,
}

impl CircuitBreaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::ramping(now, None),
            votes: Votes::default(),
            throttled_destinations: ThrottledDestinations::default(),
            stepped_aside_at: None,
            others_accepted: None,
            others_moved_at: None,
            accepted_messages: 0,
            failed_attempts: 0,
        }
    }

    /// How many messages the worker may claim at `now`, while `in_flight` are in flight.
    pub(crate) fn allowance(&mut self, now: Instant, in_flight: usize) -> Allowance {
        match &mut self.state {
            State::Serving => Allowance::Claim(WIDE),
            State::Ramping {
                max_open_calls,
                widened_at,
                ..
            } => {
                let is_quiet = now.saturating_duration_since(*widened_at) >= WIDEN_EVERY;
                if is_quiet && self.votes.is_empty() {
                    *max_open_calls = (*max_open_calls * 2).min(WIDE);
                    *widened_at = now;
                }
                match max_open_calls.saturating_sub(in_flight) {
                    0 => Allowance::Wait(now + WIDEN_EVERY),
                    free => Allowance::Claim(free),
                }
            }
            State::Aside(aside) if now < aside.next_probe_at => {
                Allowance::Wait(aside.next_probe_at)
            }
            State::Aside(_) if in_flight > 0 => Allowance::Wait(now + WIDEN_EVERY),
            State::Doubting { .. } => Allowance::Wait(now + WIDEN_EVERY),
            State::Aside(_) | State::Held => Allowance::Claim(1),
        }
    }

    /// Decides whose fault a finished attempt is.
    pub(crate) fn observe(&mut self, attempt: Attempt<'_>, now: Instant) -> Verdict {
        let (fault, evidence, transition) = match attempt.outcome {
            Outcome::Accepted(_) => {
                return Verdict {
                    is_charged: true,
                    fault: None,
                    evidence: None,
                    transition: self.accepted(attempt, now),
                };
            }
            Outcome::Rejected => (
                Fault::Message,
                "the API rejects the message".into(),
                self.api_works(attempt, now),
            ),
            Outcome::Throttled => self.throttled(attempt, now),
            Outcome::Transient | Outcome::Unserved | Outcome::Unauthorized | Outcome::Ambiguous => {
                self.failed(attempt, now)
            }
        };
        self.failed_attempts += 1;
        Verdict {
            is_charged: matches!(fault, Fault::Message | Fault::Destination),
            fault: Some(fault),
            evidence: Some(evidence.into_owned()),
            transition,
        }
    }

    fn accepted(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.accepted_messages += 1;
        self.votes.accepted(attempt.host, attempt.target, now);
        self.throttled_destinations.accepted(attempt.target);
        let State::Ramping {
            max_open_calls,
            widened_at,
            min_votes,
        } = &mut self.state
        else {
            return self.api_works(attempt, now);
        };
        *max_open_calls = max_open_calls.saturating_mul(2);
        *widened_at = now;
        *min_votes = None;
        if *max_open_calls >= WIDE {
            self.state = State::Serving;
        }
        Transition::None
    }

    /// The API accepted, rejected or throttled a message, so it works and knows the app.
    fn api_works(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.votes.end_run(attempt.host);
        let transition = match self.state {
            State::Ramping { .. } | State::Serving => return Transition::None,
            State::Held if attempt.kind != AttemptKind::Probe => return Transition::None,
            State::Held => Transition::Release,
            State::Doubting { .. } => Transition::None,
            State::Aside(_) => Transition::Return,
        };
        self.state = State::ramping(now, None);
        transition
    }

    fn throttled(&mut self, attempt: Attempt<'_>, now: Instant) -> Judgement {
        let transition = self.api_works(attempt, now);
        if self.throttled_destinations.is_at_fault(attempt.target) {
            let evidence = "the API throttles this destination, and accepts messages to others";
            return (Fault::Destination, evidence.into(), transition);
        }
        let transition = match transition {
            Transition::None => Transition::Throttle,
            other => other,
        };
        let evidence = "the API allows the app no more calls at present";
        (Fault::Budget, evidence.into(), transition)
    }

    fn failed(&mut self, attempt: Attempt<'_>, now: Instant) -> Judgement {
        let kind = match attempt.outcome {
            Outcome::Unauthorized => HoldKind::Unauthorized,
            _ => HoldKind::Unavailable,
        };
        let (fault, evidence) = match &mut self.state {
            _ if attempt.kind == AttemptKind::Probe => {
                let evidence = "the app is held, and this was its probe";
                return (Fault::Api, evidence.into(), Transition::Extend(kind));
            }
            State::Held => (
                Fault::Api,
                "the app is held: no message of any worker was accepted",
            ),
            State::Aside(aside) => {
                aside.back_off(now);
                let evidence = "calls of this worker fail, while messages of others are accepted";
                (Fault::Worker, evidence)
            }
            State::Doubting { .. } => (
                Fault::Unclear,
                "many calls of this worker have failed in a row",
            ),
            State::Ramping { .. } | State::Serving => {
                self.votes.failed(attempt, now);
                let (fault, evidence) = self.judge_by_acceptance(attempt.outcome, now);
                let min_votes = self.state.min_votes();
                let transition = if self.votes.are_too_many(attempt, min_votes, now) {
                    self.doubt(attempt.error.to_owned(), kind)
                } else {
                    Transition::None
                };
                return (fault, evidence, transition);
            }
        };
        (fault, evidence.into(), Transition::None)
    }

    /// The message is at fault only if the API accepts others at present.
    fn judge_by_acceptance(&self, outcome: Outcome, now: Instant) -> (Fault, Cow<'static, str>) {
        if outcome == Outcome::Unserved {
            return (Fault::Unclear, "the call did not reach the API".into());
        }
        let share = self.votes.accepted_share(now);
        if let Some((accepted, all)) = share
            && accepted * 2 >= all
        {
            let evidence = format!(
                "the API has accepted {accepted} of the last {all} messages of this worker"
            );
            return (Fault::Message, evidence.into());
        }
        let lasts = |at: Instant| now.saturating_duration_since(at) < ACCEPTANCE_LASTS;
        if self.others_moved_at.is_some_and(lasts) {
            // If the API accepted nothing of this worker, or several of its calls failed, the worker itself may be at fault.
            return if self.accepted_messages > 0 && self.votes.in_a_row(now) <= 1 {
                let evidence = "the API accepts messages of other workers";
                (Fault::Message, evidence.into())
            } else {
                let evidence =
                    "the API accepts messages of other workers, so this worker may be at fault";
                (Fault::Unclear, evidence.into())
            };
        }
        let evidence = match share {
            Some((accepted, all)) => format!(
                "the API has accepted only {accepted} of the last {all} messages of this worker"
            ),
            None => "no message was accepted in the last ten seconds".to_owned(),
        };
        (Fault::Unclear, evidence.into())
    }

    /// A claim found that nothing is due. If the worker's only calls have failed, it gets no more votes, so it doubts now.
    pub(crate) fn nothing_due(&mut self, now: Instant) -> Transition {
        let was_accepted = self.votes.was_accepted_lately(now);
        match (&self.state, self.votes.reason()) {
            (State::Ramping { .. } | State::Serving, Some((kind, reason))) if !was_accepted => {
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
        match &mut self.state {
            _ if is_probe => return Transition::Extend(HoldKind::Unauthorized),
            State::Ramping { .. } | State::Serving => {
                return self.doubt(error.to_owned(), HoldKind::Unauthorized);
            }
            State::Aside(aside) => aside.back_off(now),
            State::Doubting { .. } | State::Held => {}
        }
        Transition::None
    }

    fn doubt(&mut self, reason: String, kind: HoldKind) -> Transition {
        self.votes.suspect();
        self.state = State::Doubting {
            kind,
            reason,
            others_accepted: None,
            reports: 0,
            is_confirmed: self.state.is_before_aside(),
        };
        Transition::Doubt
    }

    /// Compares how many messages of the other workers the API has accepted, and how many other workers serve the app.
    pub(crate) fn observe_others(
        &mut self,
        accepted: u64,
        serving: u32,
        now: Instant,
    ) -> Option<Decision> {
        // An idle worker does not read the counters, so a difference from an old reading may itself be old.
        if let Some((before, at)) = self.others_accepted
            && accepted > before
            && now.saturating_duration_since(at) < ACCEPTANCE_LASTS
        {
            self.others_moved_at = Some(now);
        }
        // Reports with a gap do not show if the API accepted those messages at the time of the failed calls or after its outage.
        let has_gap = self
            .others_accepted
            .is_some_and(|(_, at)| now.saturating_duration_since(at) > LONGEST_REPORT_GAP);
        self.others_accepted = Some((accepted, now));
        let may_step_aside = !has_gap
            && self
                .stepped_aside_at
                .is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_ASIDES);
        match &mut self.state {
            State::Doubting {
                kind,
                reason,
                others_accepted,
                reports,
                is_confirmed,
            } => {
                let before = *others_accepted.get_or_insert(accepted);
                let (kind, reason) = (*kind, reason.clone());
                *reports += 1;
                if serving > 0 && accepted > before {
                    // A later report may show messages that the API accepted only after an outage for all workers.
                    if *is_confirmed && may_step_aside && *reports <= 3 {
                        self.step_aside(reason.clone(), now);
                        return Some(Decision::SteppedAside { reason });
                    }
                    // The fault may have ended for other workers before it ended for this one.
                    self.ramp_up(now, Some(MIN_BEFORE_ASIDE));
                    return None;
                }
                let is_known = serving == 0 || *reports > REPORTS_TO_WAIT;
                is_known.then_some(Decision::Hold { kind, reason })
            }
            State::Aside(_) if serving == 0 => {
                self.ramp_up(now, Some(MIN_UNPROVEN));
                Some(Decision::Returned)
            }
            _ => None,
        }
    }

    fn step_aside(&mut self, reason: String, now: Instant) {
        self.stepped_aside_at = Some(now);
        self.votes.forget_runs();
        self.state = State::Aside(Aside {
            next_probe_at: now + ASIDE_FIRST_PAUSE,
            pause: ASIDE_FIRST_PAUSE,
            reason,
        });
    }

    fn ramp_up(&mut self, now: Instant, min_votes: Option<u32>) {
        self.votes.forget_runs();
        self.state = State::ramping(now, min_votes);
    }

    /// This worker or another one holds the lane.
    pub(crate) fn lane_held(&mut self) {
        self.votes.forget_runs();
        self.state = State::Held;
    }

    pub(crate) fn lane_free(&mut self, now: Instant) {
        if self.state == State::Held {
            self.ramp_up(now, Some(MIN_UNPROVEN));
        }
    }

    /// The last hold ended less than ten seconds ago, so the lane can't be held yet.
    pub(crate) fn hold_refused(&mut self, now: Instant) {
        self.ramp_up(now, Some(MIN_UNPROVEN));
    }

    pub(crate) fn is_doubting(&self) -> bool {
        matches!(self.state, State::Doubting { .. }) || self.state.is_before_aside()
    }

    /// Why this worker has stepped aside, if it has.
    pub(crate) fn aside_reason(&self) -> Option<&str> {
        match &self.state {
            State::Aside(aside) => Some(&aside.reason),
            _ => None,
        }
    }
}

impl State {
    fn ramping(now: Instant, min_votes: Option<u32>) -> Self {
        Self::Ramping {
            max_open_calls: 1,
            widened_at: now,
            min_votes,
        }
    }

    /// Votes that make the worker doubt, instead of the usual number.
    fn min_votes(&self) -> Option<u32> {
        match self {
            Self::Ramping { min_votes, .. } => *min_votes,
            Self::Serving | Self::Doubting { .. } | Self::Aside(_) | Self::Held => None,
        }
    }

    /// The worker has doubted, and makes a few more calls before it steps aside.
    fn is_before_aside(&self) -> bool {
        self.min_votes() == Some(MIN_BEFORE_ASIDE)
    }
}

impl Aside {
    fn back_off(&mut self, now: Instant) {
        self.next_probe_at = now + self.pause;
        self.pause = (self.pause * 2).min(ASIDE_LONGEST_PAUSE);
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}
