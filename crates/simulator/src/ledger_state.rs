//! What is written in the ledger, without its lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::call::{Call, CallKind, payload_hash};
use super::limit::Limiter;
use super::summary::{AppTotals, Summary};

/// Apps with totals of their own; what comes after them is summed up under [`OTHER_APPS`].
const MAX_APPS: usize = 1_000;

/// The name under which the totals of apps beyond the first thousand stand.
pub(super) const OTHER_APPS: &str = "(others)";

/// A call from its arrival to its end: the entry to be written, and its exact time.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) at: Duration,
    pub(super) call: Call,
}

/// What the limit says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The sliding second is full.
    Refused,
    /// The call may go on. `nth` tells how many calls of the same message were admitted, this one included; `None`
    /// when the ledger holds too many messages to tell.
    Admitted { nth: Option<u32> },
}

/// Calls, totals, messages, and the limit's memory.
#[derive(Debug)]
pub(super) struct LedgerState {
    calls: VecDeque<Call>,
    /// Bounds the calls kept, and the messages told apart.
    kept_max: usize,
    last_seq: u64,
    /// Calls up to this one are no longer part of any total.
    cleared_seq: u64,
    judged_calls: u64,
    strays: u64,
    untracked_messages: u64,
    apps: HashMap<String, AppTotals>,
    messages: HashMap<u128, MessageTally>,
    limiter: Limiter,
    connections: u64,
    open_connections: u64,
    most_connections: u64,
}

#[derive(Debug, Default)]
struct MessageTally {
    admitted: u32,
    accepted: u32,
}

impl LedgerState {
    pub(super) fn new(kept_max: usize) -> Self {
        Self {
            calls: VecDeque::new(),
            kept_max,
            last_seq: 0,
            cleared_seq: 0,
            judged_calls: 0,
            strays: 0,
            untracked_messages: 0,
            apps: HashMap::new(),
            messages: HashMap::new(),
            limiter: Limiter::default(),
            connections: 0,
            open_connections: 0,
            most_connections: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            last_seq: self.last_seq,
            cleared_seq: self.last_seq,
            limiter: std::mem::take(&mut self.limiter),
            open_connections: self.open_connections,
            most_connections: self.open_connections,
            ..Self::new(self.kept_max)
        };
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }

    pub(super) fn calls_after(&self, seq: u64) -> impl Iterator<Item = &Call> {
        let start = self.calls.partition_point(|call| call.seq <= seq);
        self.calls.range(start..)
    }

    pub(super) fn calls_for_payload(&self, payload: &str) -> impl Iterator<Item = &Call> {
        let hash = payload_hash(payload);
        self.calls
            .iter()
            .filter(move |call| call.carries_hashed(payload, &hash))
    }

    pub(super) fn judged_calls(&self) -> u64 {
        self.judged_calls
    }

    pub(super) fn accepted(&self) -> u64 {
        self.apps.values().map(|app| app.accepted).sum()
    }

    pub(super) fn summary(&self) -> Summary {
        let apps: BTreeMap<_, _> = self
            .apps
            .iter()
            .map(|(app_id, totals)| (app_id.clone(), totals.summary()))
            .collect();
        Summary {
            calls: apps.values().map(|app| app.calls).sum(),
            judged_calls: self.judged_calls,
            accepted: self.accepted(),
            duplicates: apps.values().map(|app| app.duplicates).sum(),
            strays: self.strays,
            kept_calls: self.calls.len() as u64,
            untracked_messages: self.untracked_messages,
            connections: self.connections,
            open_connections: self.open_connections,
            most_connections: self.most_connections,
            apps,
            ..Summary::default()
        }
    }

    pub(super) fn connected(&mut self) {
        self.connections += 1;
        self.open_connections += 1;
        self.most_connections = self.most_connections.max(self.open_connections);
    }

    pub(super) fn disconnected(&mut self) {
        self.open_connections = self.open_connections.saturating_sub(1);
    }

    pub(super) fn note_stray(&mut self) {
        self.strays += 1;
    }

    pub(super) fn arrive(&mut self, at: Duration, kind: CallKind, app_id: String) -> Arrival {
        self.last_seq += 1;
        let call = Call {
            seq: self.last_seq,
            at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            app_id,
            kind,
            sender: String::new(),
            target: String::new(),
            payload: None,
            payload_bytes: 0,
            payload_hash: String::new(),
            wait_for_ack: false,
            enable_offline_messaging: false,
            enable_historical_messaging: false,
            status: None,
            code: None,
            fault: None,
            accepted: false,
            request_id: String::new(),
        };
        self.app(&call.app_id).arrived(at);
        self.calls.push_back(call.clone());
        while self.calls.len() > self.kept_max {
            self.calls.pop_front();
        }
        Arrival { at, call }
    }

    pub(super) fn admit(
        &mut self,
        arrival: &Arrival,
        message_key: u128,
        limit: Option<u32>,
    ) -> Admission {
        if !self.limiter.admit(&arrival.call.app_id, arrival.at, limit) {
            return Admission::Refused;
        }
        let nth = self.message(message_key).map(|tally| {
            tally.admitted = tally.admitted.saturating_add(1);
            tally.admitted
        });
        self.untracked_messages += u64::from(nth.is_none());
        Admission::Admitted { nth }
    }

    pub(super) fn judge(&mut self, arrival: &Arrival, message_key: u128) {
        let call = &arrival.call;
        if call.seq <= self.cleared_seq {
            return;
        }
        if call.accepted {
            let times = self.message(message_key).map(|tally| {
                tally.accepted = tally.accepted.saturating_add(1);
                tally.accepted
            });
            self.app(&call.app_id)
                .accepted(arrival.at, times == Some(2));
        }
        if let Some(status) = call.status {
            self.app(&call.app_id).responded(status);
        }
        if let Some(kept) = self.kept(call.seq) {
            *kept = call.clone();
        }
        self.judged_calls += 1;
    }

    pub(super) fn responded(&mut self, call: &Call, status: u16) {
        if call.seq <= self.cleared_seq {
            return;
        }
        self.app(&call.app_id).responded(status);
        if let Some(kept) = self.kept(call.seq) {
            kept.status = Some(status);
        }
    }

    fn app(&mut self, app_id: &str) -> &mut AppTotals {
        let known = self.apps.contains_key(app_id);
        let name = if known || self.apps.len() < MAX_APPS {
            app_id
        } else {
            OTHER_APPS
        };
        self.apps.entry(name.to_owned()).or_default()
    }

    fn message(&mut self, key: u128) -> Option<&mut MessageTally> {
        if self.messages.len() >= self.kept_max && !self.messages.contains_key(&key) {
            return None;
        }
        Some(self.messages.entry(key).or_default())
    }

    fn kept(&mut self, seq: u64) -> Option<&mut Call> {
        // Calls are kept without gaps, so the place follows from the number.
        let first = self.calls.front()?.seq;
        let place = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.calls.get_mut(place)
    }
}
