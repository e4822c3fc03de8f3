//! The receiving end's own account of every call: what tests ask instead of believing the worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Notify;

use super::call::{Call, CallKind};
use super::ledger_state::{Admission, Arrival, LedgerState};
use super::summary::Summary;

/// Calls kept in memory by [`Ledger::default`].
const DEFAULT_KEPT_CALLS: usize = 1_000_000;

/// Every call that the simulated API has seen.
///
/// It may outlive a [`Simulator`](super::Simulator) and be handed to the next one. The limit's memory is here too, so
/// that an API that comes back within a second still counts the calls of before.
#[derive(Debug)]
pub struct Ledger {
    started: Instant,
    state: Mutex<LedgerState>,
    changed: Notify,
}

/// The awaited state of the ledger did not come in time.
#[derive(Debug, Error)]
#[error("after {waited:?} the ledger still isn't as awaited: {summary:?}")]
pub struct WaitTimedOut {
    pub waited: Duration,
    /// What the ledger held at the end.
    pub summary: Box<Summary>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_kept_calls(DEFAULT_KEPT_CALLS)
    }
}

impl Ledger {
    /// An empty ledger that keeps the last `kept_calls_max` calls; its totals go on beyond them. As many different
    /// messages are told apart for counting duplicates.
    pub fn with_kept_calls(kept_calls_max: usize) -> Self {
        Self {
            started: Instant::now(),
            state: Mutex::new(LedgerState::new(kept_calls_max)),
            changed: Notify::new(),
        }
    }

    /// The calls that are still kept, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls().cloned().collect()
    }

    /// At most `limit` of the kept calls whose `seq` is greater than `seq`.
    pub fn calls_after(&self, seq: u64, limit: usize) -> Vec<Call> {
        self.state().calls_after(seq).take(limit).cloned().collect()
    }

    /// The kept calls that carried `payload`.
    pub fn calls_for_payload(&self, payload: &str) -> Vec<Call> {
        self.state().calls_for_payload(payload).cloned().collect()
    }

    /// The totals since the start, or since the last [`clear`](Self::clear).
    pub fn summary(&self) -> Summary {
        Summary {
            at_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            ..self.state().summary()
        }
    }

    /// Forgets all calls and totals. Calls under way are not counted when they end, and the limit keeps its memory.
    pub fn clear(&self) {
        self.change(LedgerState::clear);
    }

    /// Waits until `count` calls were judged: answered, or left without an answer on purpose.
    ///
    /// # Errors
    /// [`WaitTimedOut`] when that does not come within `timeout`.
    pub async fn wait_for_calls(&self, count: u64, timeout: Duration) -> Result<(), WaitTimedOut> {
        self.wait(timeout, |state| state.judged_calls() >= count)
            .await
    }

    /// Waits until `count` messages were accepted, duplicates included.
    ///
    /// # Errors
    /// [`WaitTimedOut`] when that does not come within `timeout`.
    pub async fn wait_for_accepted(
        &self,
        count: u64,
        timeout: Duration,
    ) -> Result<(), WaitTimedOut> {
        self.wait(timeout, |state| state.accepted() >= count).await
    }

    /// Waits until the summary satisfies `condition`, which is asked after every change.
    ///
    /// # Errors
    /// [`WaitTimedOut`] when that does not come within `timeout`.
    pub async fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&Summary) -> bool,
    ) -> Result<(), WaitTimedOut> {
        self.wait(timeout, |state| condition(&state.summary()))
            .await
    }

    async fn wait(
        &self,
        timeout: Duration,
        condition: impl Fn(&LedgerState) -> bool,
    ) -> Result<(), WaitTimedOut> {
        let waiting = async {
            loop {
                // Registered before the look, so that a change in between is not missed.
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
            .map_err(|_| WaitTimedOut {
                waited: timeout,
                summary: Box::new(self.summary()),
            })
    }

    /// Counts a connection, for as long as what is returned is kept.
    pub(super) fn connected(self: &Arc<Self>) -> OpenConnection {
        self.change(LedgerState::connected);
        OpenConnection(Arc::clone(self))
    }

    /// Notes a request that is no call: an unknown route or method.
    pub(super) fn note_stray(&self) {
        self.change(LedgerState::note_stray);
    }

    /// Notes the arrival of a call. What is found out later is written by [`judge`](Self::judge).
    pub(super) fn arrive(&self, arrived: Instant, kind: CallKind, app_id: String) -> Arrival {
        let at = arrived.saturating_duration_since(self.started);
        self.change(|state| state.arrive(at, kind, app_id))
    }

    /// Asks the limit, and counts the call among those of its message.
    pub(super) fn admit(&self, arrival: &Arrival, limit: Option<u32>) -> Admission {
        let key = arrival.call.message_key();
        self.state().admit(arrival, key, limit)
    }

    /// Writes down what was decided about the call. Its status may come later, by [`answered`](Self::answered).
    pub(super) fn judge(&self, arrival: &Arrival) {
        let key = arrival.call.message_key();
        self.change(|state| state.judge(arrival, key));
    }

    /// Notes that a call which was judged before has been answered with `status`.
    pub(super) fn responded(&self, arrival: &Arrival, status: u16) {
        self.change(|state| state.responded(&arrival.call, status));
    }

    fn change<T>(&self, change: impl FnOnce(&mut LedgerState) -> T) -> T {
        let outcome = change(&mut self.state());
        self.changed.notify_waiters();
        outcome
    }

    fn state(&self) -> MutexGuard<'_, LedgerState> {
        // A test that panicked while it held the state has failed already; the others may go on reading.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that the ledger counts.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<Ledger>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.change(LedgerState::disconnected);
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
