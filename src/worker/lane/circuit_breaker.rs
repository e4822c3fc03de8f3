//! Decides whose fault failed attempts are: the message's or its destination's, this worker's, or the API's. Only the
//! API's fault may hold an app. Pure: the caller passes outcomes, the counters of the other workers, and the time.
//!
//! The states of one worker, for one app:
//!
//! - **ramping**: few calls are open at once. Each accepted message doubles their number, as does a second without a
//!   failure. Left for *serving* when nothing is limited any more.
//! - **serving**: the worker claims as much as there are slots.
//! - **doubting**: too many calls in a row have failed. The worker claims nothing, and waits for the counters of the other
//!   workers. If no message of others is accepted meanwhile, left for *held*, or for *ramping* if the last hold has ended less
//!   than ten seconds ago. If one is, left for *ramping*; and for *aside*
//!   if the next calls fail, too. Left for *ramping* if a message of its own is accepted.
//! - **aside**: this worker is at fault. It makes one call at a time, the first after three seconds, and the pause doubles to
//!   thirty. The other workers serve the app. Left for *ramping* when a message is accepted, rejected or throttled, or when no
//!   other worker serves the app. A worker steps aside once in ten seconds at most.
//! - **held**: the lane is held for all workers, and sends probes. Each other state is left for *held* when a claim shows
//!   that the lane is held. Left for *ramping* when the lane is released.
//!
//! `votes.rs` says which failed calls count.

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod verdict;
mod votes;

use std::time::{Duration, Instant};

use crate::outbox::HoldKind;
use crate::outcome::{Fault, Outcome};
pub(in crate::worker) use verdict::{
    Allowance, Attempt, AttemptKind, Decision, Transition, Verdict,
};
use votes::{ACCEPTANCE_LASTS, Votes};

/// Votes that make a worker doubt that serves the app again, and of which no message was accepted since.
const MIN_UNPROVEN: u32 = 4;
/// Votes that make a worker doubt again that has doubted while messages of others were accepted.
const MIN_BEFORE_ASIDE: u32 = 2;
/// A worker that doubts waits for so many reports after the first one. Each worker reports once a second, and an accepted
/// message of another one may be in the second report after that, as seen from here.
const REPORTS_TO_WAIT: u32 = 3;
/// While few calls are open, their number also doubles after this time.
const WIDEN_EVERY: Duration = Duration::from_secs(1);
/// No limit in practice.
const WIDE: usize = 1 << 20;
/// The first pause of a worker that has stepped aside before it tries again. It doubles up to the longest one.
const ASIDE_FIRST_PAUSE: Duration = Duration::from_secs(3);
const ASIDE_LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest time between the moments in which a worker steps aside.
const BETWEEN_ASIDES: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::worker) struct CircuitBreaker {
    state: State,
    votes: Votes,
    stepped_aside_at: Option<Instant>,
    /// How many messages of other workers the API has accepted, and when this worker read that.
    others_accepted: Option<(u64, Instant)>,
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
        caution: Caution,
    },
    Serving,
    Doubting {
        kind: HoldKind,
        reason: String,
        /// Accepted messages of the others at the first report after the doubts began.
        others_accepted: Option<u64>,
        /// Reports since then.
        reports: u32,
        /// The worker has doubted before, and tried again since.
        is_confirmed: bool,
    },
    Aside {
        next_probe_at: Instant,
        pause: Duration,
        reason: String,
    },
    Held,
}

/// How few votes make a worker doubt that has begun to call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Caution {
    Usual,
    /// The worker serves the app again, and none of its messages was accepted since.
    Unproven,
    /// The worker has doubted, and messages of others were accepted meanwhile.
    BeforeAside,
}

impl CircuitBreaker {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            state: State::ramping(now, Caution::Usual),
            votes: Votes::default(),
            stepped_aside_at: None,
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
                if self.votes.is_empty()
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
                let transition = self.judged(attempt, now);
                Verdict::failed(
                    true,
                    Fault::Message,
                    "the API rejects the message",
                    transition,
                )
            }
            Outcome::Throttled => {
                self.failed += 1;
                let transition = match self.judged(attempt, now) {
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
        self.votes.accepted(attempt.host, attempt.target, now);
        if let State::Ramping {
            window,
            widened_at,
            caution,
        } = &mut self.state
        {
            *window = window.saturating_mul(2);
            *widened_at = now;
            *caution = Caution::Usual;
            if *window >= WIDE {
                self.state = State::Serving;
            }
            return Transition::None;
        }
        self.judged(attempt, now)
    }

    /// The API has accepted, rejected or throttled a message: it works, and knows the app.
    fn judged(&mut self, attempt: Attempt<'_>, now: Instant) -> Transition {
        self.votes.end_run(attempt.host);
        match self.state {
            State::Ramping { .. } | State::Serving => Transition::None,
            State::Held if attempt.kind != AttemptKind::Probe => Transition::None,
            State::Held => {
                self.state = State::ramping(now, Caution::Usual);
                Transition::Release
            }
            State::Doubting { .. } => {
                self.state = State::ramping(now, Caution::Usual);
                Transition::None
            }
            State::Aside { .. } => {
                self.state = State::ramping(now, Caution::Usual);
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
            _ if attempt.kind == AttemptKind::Probe => {
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
                self.votes.failed(attempt, now);
                let known = self.known_acceptance(now);
                let transition = if self
                    .votes
                    .are_too_many(attempt, self.state.min_votes(), now)
                {
                    self.doubt(attempt.error.to_owned(), kind);
                    Transition::Doubt
                } else {
                    Transition::None
                };
                match known {
                    _ if matches!(attempt.outcome, Outcome::Unserved) => {
                        let evidence = "the call did not reach the API";
                        Verdict::failed(false, Fault::Unclear, evidence, transition)
                    }
                    Ok(evidence) => Verdict::failed(true, Fault::Message, &evidence, transition),
                    Err(evidence) => Verdict::failed(false, Fault::Unclear, &evidence, transition),
                }
            }
        }
    }
}

/// The lane, and the other workers.
impl CircuitBreaker {
    /// A claim has found that nothing is due. A worker whose only calls have failed needs no more votes.
    pub(in crate::worker) fn nothing_due(&mut self, now: Instant) -> Transition {
        let is_known = self.votes.was_accepted_lately(now);
        match (&self.state, self.votes.reason()) {
            (State::Ramping { .. } | State::Serving, Some((kind, reason))) if !is_known => {
                self.doubt(reason, kind);
                Transition::Doubt
            }
            _ => Transition::None,
        }
    }

    fn doubt(&mut self, reason: String, kind: HoldKind) {
        self.votes.suspect();
        let is_confirmed = self.state.is_before_aside();
        self.state = State::Doubting {
            kind,
            reason,
            others_accepted: None,
            reports: 0,
            is_confirmed,
        };
    }

    /// The evidence that the API accepts other messages at present, or that it does not.
    fn known_acceptance(&self, now: Instant) -> Result<String, String> {
        let share = self.votes.accepted_share(now);
        if let Some((accepted, all)) = share
            && accepted * 2 >= all
        {
            return Ok(format!(
                "the API has accepted {accepted} of the last {all} messages of this worker"
            ));
        }
        let lasts = |at: Instant| now.saturating_duration_since(at) < ACCEPTANCE_LASTS;
        if self.others_moved_at.is_some_and(lasts) {
            // A worker of which no message was accepted, or many calls have failed, may be at fault itself.
            if self.accepted > 0 && self.votes.in_a_row(now) <= 1 {
                return Ok("the API accepts messages of other workers".to_owned());
            }
            return Err(
                "the API accepts messages of other workers, so this worker may be at fault"
                    .to_owned(),
            );
        }
        Err(match share {
            Some((accepted, all)) => {
                format!(
                    "the API has accepted only {accepted} of the last {all} messages of this worker"
                )
            }
            None => "no message was accepted in the last ten seconds".to_owned(),
        })
    }

    /// This worker can't read its credentials, so it can't sign any request.
    pub(in crate::worker) fn no_credentials(
        &mut self,
        error: &str,
        is_probe: bool,
        now: Instant,
    ) -> Transition {
        match &mut self.state {
            _ if is_probe => Transition::Extend(HoldKind::Unauthorized),
            State::Ramping { .. } | State::Serving => {
                self.doubt(error.to_owned(), HoldKind::Unauthorized);
                Transition::Doubt
            }
            State::Aside {
                next_probe_at,
                pause,
                ..
            } => {
                *next_probe_at = now + *pause;
                *pause = (*pause * 2).min(ASIDE_LONGEST_PAUSE);
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
        // An idle worker does not read the counters: what they have grown by since the last time may be old.
        if let Some((before, at)) = self.others_accepted
            && accepted > before
            && now.saturating_duration_since(at) < ACCEPTANCE_LASTS
        {
            self.others_moved_at = Some(now);
        }
        self.others_accepted = Some((accepted, now));
        match &mut self.state {
            State::Doubting {
                kind,
                reason,
                others_accepted,
                reports,
                is_confirmed,
            } => {
                let before = *others_accepted.get_or_insert(accepted);
                let reason = reason.clone();
                if serving > 0 && accepted > before {
                    return Some(if *is_confirmed && self.may_step_aside(now) {
                        Decision::StepAside { reason }
                    } else {
                        Decision::TryAgain
                    });
                }
                *reports += 1;
                let is_known = serving == 0 || *reports > REPORTS_TO_WAIT;
                is_known.then_some(Decision::Hold {
                    kind: *kind,
                    reason,
                })
            }
            State::Aside { .. } if serving == 0 => Some(Decision::Return),
            _ => None,
        }
    }

    fn may_step_aside(&self, now: Instant) -> bool {
        self.stepped_aside_at
            .is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_ASIDES)
    }

    /// Makes a few calls more: the fault may have been over for others before it was over for this worker.
    pub(in crate::worker) fn try_again(&mut self, now: Instant) {
        self.votes.forget_runs();
        self.state = State::ramping(now, Caution::BeforeAside);
    }

    pub(in crate::worker) fn step_aside(&mut self, reason: String, now: Instant) {
        self.stepped_aside_at = Some(now);
        self.votes.forget_runs();
        self.state = State::Aside {
            next_probe_at: now + ASIDE_FIRST_PAUSE,
            pause: ASIDE_FIRST_PAUSE,
            reason,
        };
    }

    /// Serves the app again, carefully.
    pub(in crate::worker) fn return_to_app(&mut self, now: Instant) {
        self.votes.forget_runs();
        self.state = State::ramping(now, Caution::Unproven);
    }

    /// The lane is held, by this worker or by another one.
    pub(in crate::worker) fn lane_held(&mut self) {
        self.votes.forget_runs();
        self.state = State::Held;
    }

    /// The lane is not held at present.
    pub(in crate::worker) fn lane_free(&mut self, now: Instant) {
        if self.state == State::Held {
            self.return_to_app(now);
        }
    }

    /// The last hold has ended less than ten seconds ago. The worker makes one call at a time until the lane can be held
    /// again.
    pub(in crate::worker) fn hold_refused(&mut self, now: Instant) {
        self.return_to_app(now);
    }

    /// Messages that the API has accepted from this worker.
    pub(in crate::worker) fn accepted_messages(&self) -> u64 {
        self.accepted
    }

    pub(in crate::worker) fn failed_attempts(&self) -> u64 {
        self.failed
    }

    pub(in crate::worker) fn is_doubting(&self) -> bool {
        matches!(self.state, State::Doubting { .. }) || self.state.is_before_aside()
    }

    /// Why this worker has stepped aside, if it has.
    pub(in crate::worker) fn aside_reason(&self) -> Option<&str> {
        match &self.state {
            State::Aside { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

impl State {
    /// Votes that make the worker doubt, instead of the usual number.
    fn min_votes(&self) -> Option<u32> {
        match self {
            Self::Ramping { caution, .. } => match caution {
                Caution::Usual => None,
                Caution::Unproven => Some(MIN_UNPROVEN),
                Caution::BeforeAside => Some(MIN_BEFORE_ASIDE),
            },
            Self::Serving | Self::Doubting { .. } | Self::Aside { .. } | Self::Held => None,
        }
    }

    fn ramping(now: Instant, caution: Caution) -> Self {
        Self::Ramping {
            window: 1,
            widened_at: now,
            caution,
        }
    }

    /// The worker has doubted, and makes a few calls more before it steps aside.
    fn is_before_aside(&self) -> bool {
        matches!(
            self,
            Self::Ramping {
                caution: Caution::BeforeAside,
                ..
            }
        )
    }
}
