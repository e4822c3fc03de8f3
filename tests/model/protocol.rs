//! The protocol as a state machine: the possible steps of each state, and their results.

use super::action::{Action, At, Response};
use super::explorer::{Model, Property};
use super::promise;
use super::rules::{Hazards, Message, Rules};
use super::state::{Breach, Clock, Row, Stage, State, Ticks, Truth, Worker};

/// The size of the explored world, its hazards, and its rules.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    /// The number of processes.
    pub(crate) workers: usize,
    /// The most messages of a worker between claim and record.
    pub(crate) room: usize,
    pub(crate) messages: Vec<Message>,
    pub(crate) lease: Ticks,
    pub(crate) request_timeout: Ticks,
    /// Hazards beside crashes, delays, lost responses, refusals and operators.
    pub(crate) hazards: Hazards,
    /// Without one of the rules, the protocol is a broken variant.
    pub(crate) rules: Rules,
}

impl Protocol {
    /// Workers with a lease of three ticks and calls of one tick at most. Without the check of the slot, a call may start
    /// long after its slot, so the promise does not depend on the estimate of the database's clock.
    pub(crate) fn of(workers: usize, room: usize, messages: &[Message]) -> Self {
        Self {
            workers,
            room,
            messages: messages.to_vec(),
            lease: 3,
            request_timeout: 1,
            hazards: Hazards::default(),
            rules: Rules {
                permit_checks_the_slot: false,
                ..Rules::KEPT
            },
        }
    }

    /// The same on hosts that may sleep, with all rules of the code.
    pub(crate) fn of_hosts_that_sleep(workers: usize, messages: &[Message]) -> Self {
        Self {
            hazards: Hazards {
                hosts_sleep: true,
                ..Hazards::default()
            },
            rules: Rules::KEPT,
            ..Self::of(workers, 1, messages)
        }
    }

    /// Takes a step, and keeps the order of the workers.
    pub(crate) fn take(&self, state: &mut State, action: Action) {
        match action {
            Action::Claim { worker, message } => self.claim(state, worker, message),
            Action::Dispatch(at) => self.dispatch(state, at),
            Action::LoseResponse(at) => Self::lose_response(state, at),
            Action::ReleaseOrphan(at) => Self::release_orphan(state, at),
            Action::ReadClock { worker } => state.workers[worker].clock = Clock::Right,
            Action::Release(at) => Self::release(state, at),
            Action::NotSent(at) => self.not_sent(state, at),
            Action::TakePermit { at, is_taken } => self.take_permit(state, at, is_taken),
            Action::Send { at, is_taken } => self.send(state, at, is_taken),
            Action::Finish { at, response } => self.finish(state, at, response),
            Action::Record(at) => {
                self.record(state, at);
                state.workers[at.worker].deliveries.remove(at.place);
            }
            Action::RecordWithoutResponse(at) => self.record(state, at),
            Action::GiveUpRecord(at) => {
                state.workers[at.worker].deliveries.remove(at.place);
            }
            Action::Crash { worker } => Self::crash(state, worker),
            Action::Expire { message } => self.expire(state, message),
            Action::Cancel { message } => self.cancel(state, message),
            Action::Tick { asleep } => Self::tick(state, asleep),
        }
    }

    fn actions_of_delivery(&self, state: &State, at: At, actions: &mut Vec<Action>) {
        let delivery = &state.workers[at.worker].deliveries[at.place];
        match &delivery.stage {
            Stage::Asked => {
                actions.push(Action::Dispatch(at));
                actions.push(Action::LoseResponse(at));
            }
            Stage::Orphaned => actions.push(Action::ReleaseOrphan(at)),
            Stage::Waiting => {
                actions.extend([Action::Release(at), Action::NotSent(at)]);
                // The two choices differ only if there is a call.
                let choices: &[bool] = match self.permit(state, at) {
                    Ok(()) if !self.hazards.workers_stop_before_the_wire => &[true, false],
                    _ => &[false],
                };
                let take = |&is_taken: &bool| Action::TakePermit { at, is_taken };
                actions.extend(choices.iter().map(take));
            }
            Stage::Permitted => {
                actions.extend([true, false].map(|is_taken| Action::Send { at, is_taken }));
            }
            Stage::Calling { is_taken, .. } => {
                let responses = Response::possible(*is_taken).iter();
                actions.extend(responses.map(|&response| Action::Finish { at, response }));
            }
            Stage::Recording(_) => actions.extend([
                Action::Record(at),
                Action::RecordWithoutResponse(at),
                Action::GiveUpRecord(at),
            ]),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn initial_state(&self) -> State {
        let row = |message: &Message| Row {
            end: None,
            claimed: false,
            due_in: 0,
            expires_in: message.expires_in,
            attempts: 0,
            tells_of_loss: false,
            truth: Truth::default(),
        };
        State {
            rows: self.messages.iter().map(row).collect(),
            workers: vec![Worker::default(); self.workers],
            orphans: Vec::new(),
            breaches: 0,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (worker, present) in state.workers.iter().enumerate() {
            if present.deliveries.len() < self.room {
                let is_due = |message: &usize| self.can_claim(&state.rows[*message]);
                let due = (0..state.rows.len()).filter(is_due);
                actions.extend(due.map(|message| Action::Claim { worker, message }));
            }
            for place in 0..present.deliveries.len() {
                self.actions_of_delivery(state, At { worker, place }, actions);
            }
            if !present.deliveries.is_empty() {
                actions.push(Action::Crash { worker });
            }
            if self.hazards.hosts_sleep {
                let asleep = Some(worker);
                actions.extend([Action::ReadClock { worker }, Action::Tick { asleep }]);
            }
        }
        for message in 0..state.rows.len() {
            actions.extend([Action::Expire { message }, Action::Cancel { message }]);
        }
        actions.push(Action::Tick { asleep: None });
    }

    fn next_state(&self, state: &State, action: Action) -> State {
        let mut next = state.clone();
        self.take(&mut next, action);
        let mut rows = state.rows.iter().zip(&next.rows);
        if rows.any(|(before, after)| before.end.is_some() && after.end != before.end) {
            next.breach(Breach::ChangedAfterItsEnd);
        }
        next.sort();
        next
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promise::properties(self)
    }
}
