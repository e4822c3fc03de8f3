//! The simulated API's own record of every call. Fault tests check the worker against it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Notify;

use super::call::{Call, CallKind, payload_hash};
use super::limit::Limiter;
use super::summary::{AppTotals, Summary};

const DEFAULT_KEPT_CALLS: usize = 1_000_000;

/// Further apps share the totals of [`OTHER_APPS`], so that made-up app IDs can't fill the memory.
const MAX_APPS: usize = 1_000;
pub(super) const OTHER_APPS: &str = "(others)";

/// Every call that the simulated API has received.
///
/// A ledger may outlive its [`Simulator`](super::Simulator) and be passed to the next one. The ledger also holds the
/// limit's recent calls, so that a simulator which restarts within a second still counts the calls before the restart.
#[derive(Debug)]
pub struct Ledger {
    pub(super) started: Instant,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The newest calls, with consecutive `seq`.
    calls: VecDeque<Call>,
    max_kept_calls: usize,
    last_seq: u64,
    /// The totals do not include calls up to this one.
    cleared_seq: u64,
    /// All totals but those of the apps.
    totals: Summary,
    apps: HashMap<String, AppTotals>,
    messages: HashMap<u64, MessageCounts>,
    limiter: Limiter,
}

#[derive(Debug, Default)]
struct MessageCounts {
    admitted: u32,
    accepted: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    OverLimit,
    /// `nth` counts the admitted calls of the message, including this one. A full ledger does not count.
    Admitted {
        nth: Option<u32>,
    },
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_kept_calls(DEFAULT_KEPT_CALLS)
    }
}

impl Ledger {
    /// A ledger that lists the last `max_kept_calls` calls, and checks as many different messages for duplicates.
    pub fn with_kept_calls(max_kept_calls: usize) -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::new(State {
                max_kept_calls,
                ..State::default()
            }),
            changed: Notify::new(),
        }
    }

    /// The kept calls in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_after(0, usize::MAX)
    }

    /// At most `limit` of the kept calls whose `seq` is greater than `seq`.
    pub fn calls_after(&self, seq: u64, limit: usize) -> Vec<Call> {
        let state = self.state();
        let start = state.calls.partition_point(|call| call.seq <= seq);
        state.calls.range(start..).take(limit).cloned().collect()
    }

    pub fn calls_for_payload(&self, payload: &str) -> Vec<Call> {
        let (hash, bytes) = (payload_hash(payload), payload.len() as u64);
        let state = self.state();
        let calls = state.calls.iter();
        calls
            .filter(|call| call.payload_hash == hash && call.payload_bytes == bytes)
            .cloned()
            .collect()
    }

    /// The totals since the start, or since the last [`clear`](Self::clear).
    pub fn summary(&self) -> Summary {
        Summary {
            at_us: micros(self.started.elapsed()),
            ..self.state().summary()
        }
    }

    /// Forgets all calls and totals. The limit still counts the calls of the last second.
    pub fn clear(&self) {
        self.change(|state| {
            let open_connections = state.totals.open_connections;
            *state = State {
                max_kept_calls: state.max_kept_calls,
                last_seq: state.last_seq,
                cleared_seq: state.last_seq,
                limiter: std::mem::take(&mut state.limiter),
                totals: Summary {
                    open_connections,
                    most_connections: open_connections,
                    ..Summary::default()
                },
                ..State::default()
            };
        });
    }

    /// Waits until the API has decided `count` calls.
    ///
    /// # Errors
    /// After `timeout`.
    pub async fn wait_for_calls(&self, count: u64, timeout: Duration) -> anyhow::Result<()> {
        self.wait(timeout, |state| state.totals.decided_calls >= count)
            .await
    }

    /// Waits until the API has accepted `count` messages, including duplicates.
    ///
    /// # Errors
    /// After `timeout`.
    pub async fn wait_for_accepted(&self, count: u64, timeout: Duration) -> anyhow::Result<()> {
        self.wait(timeout, |state| state.totals.accepted >= count)
            .await
    }

    /// Waits until the summary satisfies `condition`.
    ///
    /// # Errors
    /// After `timeout`.
    pub async fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&Summary) -> bool,
    ) -> anyhow::Result<()> {
        self.wait(timeout, |state| condition(&state.summary()))
            .await
    }

    async fn wait(
        &self,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                // Registered before the check, so that no change in between is missed.
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if condition(&self.state()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, waiting)
            .await
            .with_context(|| {
                let summary = self.summary();
                format!("the ledger is not as expected after {timeout:?}: {summary:?}")
            })
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn open_connection(self: &Arc<Self>) -> OpenConnection {
        self.change(|State { totals, .. }| {
            totals.connections += 1;
            totals.open_connections += 1;
            totals.most_connections = totals.most_connections.max(totals.open_connections);
        });
        OpenConnection(Arc::clone(self))
    }

    pub(super) fn add_unknown_request(&self) {
        self.change(|state| state.totals.unknown_requests += 1);
    }

    /// Records the arrival of a call. [`decide`](Self::decide) adds the rest.
    pub(super) fn arrive(&self, arrived: Instant, kind: CallKind, app_id: String) -> Call {
        let at_us = micros(arrived.saturating_duration_since(self.started));
        self.change(|state| {
            state.last_seq += 1;
            let call = Call {
                seq: state.last_seq,
                at_us,
                app_id,
                kind,
                ..Call::default()
            };
            state.totals.calls += 1;
            state.app(&call.app_id).add_arrival(at_us);
            state.calls.push_back(call.clone());
            if state.calls.len() > state.max_kept_calls {
                state.calls.pop_front();
            }
            call
        })
    }

    pub(super) fn admit(&self, call: &Call, limit: Option<u32>) -> Admission {
        let mut state = self.state();
        if !state.limiter.admit(&call.app_id, call.at(), limit) {
            return Admission::OverLimit;
        }
        let nth = state.message(call).map(|message| {
            message.admitted = message.admitted.saturating_add(1);
            message.admitted
        });
        state.totals.untracked_messages += u64::from(nth.is_none());
        Admission::Admitted { nth }
    }

    /// Records the result of a call. [`responded`](Self::responded) adds the status of a delayed response.
    pub(super) fn decide(&self, call: &Call) {
        self.change(|state| {
            if call.seq <= state.cleared_seq {
                return;
            }
            state.totals.decided_calls += 1;
            if call.accepted {
                let times = state.message(call).map(|message| {
                    message.accepted = message.accepted.saturating_add(1);
                    message.accepted
                });
                let duplicates = u64::from(times == Some(2));
                state.totals.accepted += 1;
                state.totals.duplicates += duplicates;
                let app = &mut state.app(&call.app_id).summary;
                app.accepted += 1;
                app.duplicates += duplicates;
            }
            if let Some(status) = call.status {
                state.app(&call.app_id).add_response(status);
            }
            if let Some(kept) = state.kept(call.seq) {
                *kept = call.clone();
            }
        });
    }

    pub(super) fn responded(&self, call: &Call, status: u16) {
        self.change(|state| {
            if call.seq <= state.cleared_seq {
                return;
            }
            state.app(&call.app_id).add_response(status);
            if let Some(kept) = state.kept(call.seq) {
                kept.status = Some(status);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn summary(&self) -> Summary {
        let apps = self.apps.iter();
        Summary {
            apps: apps
                .map(|(app_id, app)| (app_id.clone(), app.summary.clone()))
                .collect(),
            ..self.totals.clone()
        }
    }

    fn app(&mut self, app_id: &str) -> &mut AppTotals {
        let has_own_entry = self.apps.len() < MAX_APPS || self.apps.contains_key(app_id);
        let name = if has_own_entry { app_id } else { OTHER_APPS };
        self.apps.entry(name.to_owned()).or_default()
    }

    fn message(&mut self, call: &Call) -> Option<&mut MessageCounts> {
        let key = call.message_key();
        let has_room =
            self.messages.len() < self.max_kept_calls || self.messages.contains_key(&key);
        has_room.then(|| self.messages.entry(key).or_default())
    }

    fn kept(&mut self, seq: u64) -> Option<&mut Call> {
        let first = self.calls.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.calls.get_mut(index)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct OpenConnection(Arc<Ledger>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.change(|state| state.totals.open_connections -= 1);
    }
}
