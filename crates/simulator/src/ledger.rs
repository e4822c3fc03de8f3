//! The simulated API's own record of every call. Fault tests check the worker against it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

const DEFAULT_KEPT_CALLS: usize = 1_000_000;
/// The ledger keeps longer payloads as a hash alone, so that its memory is bounded.
const MAX_KEPT_PAYLOAD_BYTES: usize = 256;
const SECOND_US: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    #[default]
    Peer,
    Channel,
}

/// One call. A field that the API could not read from the request is empty.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(clippy::struct_excessive_bools)] // The API has these fields.
pub struct Call {
    /// Position in the order of arrival, from 1.
    pub seq: u64,
    /// Microseconds from the ledger's start to the arrival.
    pub at_us: u64,
    pub app_id: String,
    pub kind: CallKind,
    pub sender: String,
    /// The receiving user or channel.
    pub target: String,
    /// `None` if the payload has more than 256 bytes.
    pub payload: Option<String>,
    #[serde(skip)]
    pub(super) payload_hash: u64,
    pub wait_for_ack: bool,
    pub enable_offline_messaging: bool,
    pub enable_historical_messaging: bool,
    /// The HTTP status of the response, once the API has sent one.
    pub status: Option<u16>,
    /// The injected fault, such as `drop`.
    pub fault: Option<&'static str>,
    /// The API has accepted the message, even if a fault damaged the response.
    pub accepted: bool,
    pub request_id: String,
}

impl Call {
    pub(super) fn set_payload(&mut self, payload: String) {
        self.payload_hash = hash(&payload);
        self.payload = (payload.len() <= MAX_KEPT_PAYLOAD_BYTES).then_some(payload);
    }

    /// Calls with equal keys carry the same message. The API has no idempotency key, so only the content identifies a
    /// message.
    fn message_key(&self) -> u64 {
        let recipient = (&self.app_id, self.kind, &self.sender, &self.target);
        hash((recipient, self.payload_hash))
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

/// The totals of a [`Ledger`], including calls that it no longer keeps.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Microseconds from the ledger's start to the moment of this summary.
    pub at_us: u64,
    /// Received calls, including refused ones.
    pub calls: u64,
    /// Accepted messages, including duplicates.
    pub accepted: u64,
    /// Messages that the API accepted more than once. After each million different messages, the ledger forgets them and
    /// misses their later duplicates.
    pub duplicates: u64,
    /// Open connections, including those of clients of the control API.
    pub open_connections: u64,
    pub connections: u64,
    pub most_connections: u64,
    /// By app ID.
    pub apps: BTreeMap<String, AppSummary>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct AppSummary {
    /// Received calls, including refused ones.
    pub calls: u64,
    pub accepted: u64,
    pub by_status: BTreeMap<u16, u64>,
    /// Calls without a response so far.
    pub unanswered: u64,
    /// The most calls that arrived within any sliding second.
    pub worst_sliding_second: u64,
    /// Microseconds from the ledger's start to the first and the last arrival.
    pub first_at_us: u64,
    pub last_at_us: u64,
}

impl AppSummary {
    /// Arrivals a second between the first and the last. 0 if there are fewer than two.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn calls_per_s(&self) -> f64 {
        match self.last_at_us - self.first_at_us {
            0 => 0.0,
            span_us => (self.calls - 1) as f64 * 1e6 / span_us as f64,
        }
    }

    fn add_response(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
        self.unanswered -= 1;
    }
}

/// The times of the calls in the last second.
///
/// A sliding second is half-open, `(t − 1 s, t]`: two calls exactly one second apart never share one.
#[derive(Debug, Default)]
struct SlidingSecond(VecDeque<u64>);

impl SlidingSecond {
    /// The number of calls in the second that ends at `at_us`.
    fn calls(&mut self, at_us: u64) -> u64 {
        let over = self.0.partition_point(|&at| at + SECOND_US <= at_us);
        self.0.drain(..over);
        self.0.len() as u64
    }
}

/// Every call that the simulated API has received.
///
/// A ledger may outlive its [`Simulator`](super::Simulator) and be passed to the next one. The ledger also holds the
/// limit's recent calls, so that a simulator which restarts within a second still counts the calls before the restart.
#[derive(Debug)]
pub struct Ledger {
    pub started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest calls, with consecutive `seq`.
    calls: VecDeque<Call>,
    max_kept_calls: usize,
    summary: Summary,
    /// By app ID.
    arrived: HashMap<String, SlidingSecond>,
    admitted: HashMap<String, SlidingSecond>,
    messages: HashMap<u64, MessageCounts>,
}

#[derive(Debug, Default)]
struct MessageCounts {
    admitted: u32,
    accepted: u32,
}

/// One open connection in the summary. The drop subtracts it, also when a handler panics.
pub(super) struct OpenConnection(Arc<Ledger>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.change(|state| state.summary.open_connections -= 1);
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_kept_calls(DEFAULT_KEPT_CALLS)
    }
}

impl Ledger {
    /// A ledger that lists the last `max_kept_calls` calls.
    pub fn with_kept_calls(max_kept_calls: usize) -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::new(State {
                max_kept_calls,
                ..State::default()
            }),
        }
    }

    /// The kept calls in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.calls_after(0)
    }

    /// The kept calls whose `seq` is greater than `seq`.
    pub fn calls_after(&self, seq: u64) -> Vec<Call> {
        let state = self.state.lock();
        let start = state.calls.partition_point(|call| call.seq <= seq);
        state.calls.range(start..).cloned().collect()
    }

    pub fn calls_for_payload(&self, payload: &str) -> Vec<Call> {
        let payload_hash = hash(payload);
        let state = self.state.lock();
        let calls = state.calls.iter();
        calls
            .filter(|call| call.payload_hash == payload_hash)
            .cloned()
            .collect()
    }

    pub fn summary(&self) -> Summary {
        Summary {
            at_us: self.now_us(),
            ..self.state.lock().summary.clone()
        }
    }

    pub(super) fn connection_opened(self: Arc<Self>) -> OpenConnection {
        self.change(|State { summary, .. }| {
            summary.connections += 1;
            summary.open_connections += 1;
            summary.most_connections = summary.most_connections.max(summary.open_connections);
        });
        OpenConnection(self)
    }

    /// Adds the status of a delayed response.
    pub(super) fn responded(&self, call: &Call, status: u16) {
        self.change(|state| {
            state.app(&call.app_id).add_response(status);
            let first = state.calls.front().map_or(0, |first| first.seq);
            let index = call.seq.checked_sub(first).map(usize::try_from);
            if let Some(Ok(index)) = index
                && let Some(kept) = state.calls.get_mut(index)
            {
                kept.status = Some(status);
            }
        });
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock())
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Admits a call unless the sliding second already holds `limit` admitted calls of the app. Returns how many calls of
    /// the same message were admitted so far, including this one.
    pub(super) fn admit(&mut self, call: &Call, limit: Option<u32>) -> Option<u32> {
        let window = self.admitted.entry(call.app_id.clone()).or_default();
        let calls = window.calls(call.at_us);
        if limit.is_some_and(|limit| calls >= limit.into()) {
            return None;
        }
        // Without a limit the call counts too, so that a limit set later takes effect at once.
        window.0.push_back(call.at_us);
        let message = self.message(call);
        message.admitted += 1;
        Some(message.admitted)
    }

    /// Records a call whose result the API has decided. Sets its `seq`.
    pub(super) fn record(&mut self, call: &mut Call) {
        self.summary.calls += 1;
        call.seq = self.summary.calls;
        if call.accepted {
            let message = self.message(call);
            message.accepted += 1;
            let is_second = message.accepted == 2;
            self.summary.duplicates += u64::from(is_second);
            self.summary.accepted += 1;
        }
        let arrived = self.arrived.entry(call.app_id.clone()).or_default();
        let in_second = arrived.calls(call.at_us) + 1;
        arrived.0.push_back(call.at_us);

        let app = self.app(&call.app_id);
        if app.calls == 0 {
            app.first_at_us = call.at_us;
        }
        app.last_at_us = call.at_us;
        app.calls += 1;
        app.unanswered += 1;
        app.accepted += u64::from(call.accepted);
        app.worst_sliding_second = app.worst_sliding_second.max(in_second);
        if let Some(status) = call.status {
            app.add_response(status);
        }
        self.calls.push_back(call.clone());
        if self.calls.len() > self.max_kept_calls {
            self.calls.pop_front();
        }
    }

    fn app(&mut self, app_id: &str) -> &mut AppSummary {
        self.summary.apps.entry(app_id.to_owned()).or_default()
    }

    fn message(&mut self, call: &Call) -> &mut MessageCounts {
        let key = call.message_key();
        // A long run must not fill the memory.
        if self.messages.len() >= DEFAULT_KEPT_CALLS && !self.messages.contains_key(&key) {
            self.messages.clear();
        }
        self.messages.entry(key).or_default()
    }
}
