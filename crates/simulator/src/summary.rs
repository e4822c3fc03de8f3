//! The ledger's totals, including calls that the ledger no longer keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::SlidingSecond;

/// The totals of a [`Ledger`](super::Ledger).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Microseconds from the ledger's start to the moment of this summary.
    pub at_us: u64,
    /// Received calls, including refused ones.
    pub calls: u64,
    /// Calls whose result the API has decided. The API still reads the body of every other call.
    pub decided_calls: u64,
    pub accepted: u64,
    /// Messages that the API accepted more than once.
    pub duplicates: u64,
    /// Requests for an unknown path or with a wrong method. The ledger does not count them as calls.
    pub unknown_requests: u64,
    /// Calls that the ledger could not check for duplicates because it was full. If this is not 0, `duplicates` is a
    /// lower bound.
    pub untracked_messages: u64,
    /// Open connections, including those of clients of the control API.
    pub open_connections: u64,
    pub connections: u64,
    pub most_connections: u64,
    /// By app ID. Apps beyond the first thousand share the entry `(others)`.
    pub apps: BTreeMap<String, AppSummary>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppSummary {
    /// Received calls, including refused ones.
    pub calls: u64,
    pub accepted: u64,
    /// Messages that the API accepted more than once.
    pub duplicates: u64,
    pub by_status: BTreeMap<u16, u64>,
    /// Calls without a response so far.
    pub unanswered: u64,
    /// The most calls that arrived within any sliding second.
    pub worst_sliding_second: u64,
    /// Microseconds from the ledger's start to the first and the last arrival.
    pub first_at_us: u64,
    pub last_at_us: u64,
    /// Arrivals a second between the first and the last. 0 if there are fewer than two.
    pub calls_per_s: f64,
}

/// An app's totals, and the recent arrivals.
#[derive(Debug, Default)]
pub(super) struct AppTotals {
    pub(super) summary: AppSummary,
    arrivals: SlidingSecond,
}

impl AppTotals {
    pub(super) fn add_arrival(&mut self, at_us: u64) {
        let peak = self.arrivals.insert(Duration::from_micros(at_us));
        let app = &mut self.summary;
        if app.calls == 0 {
            (app.first_at_us, app.last_at_us) = (at_us, at_us);
        }
        app.calls += 1;
        app.unanswered += 1;
        app.worst_sliding_second = app.worst_sliding_second.max(peak);
        app.first_at_us = app.first_at_us.min(at_us);
        app.last_at_us = app.last_at_us.max(at_us);
        let span_us = app.last_at_us - app.first_at_us;
        if span_us > 0 {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let rate = (app.calls - 1) as f64 * 1e6 / span_us as f64;
            app.calls_per_s = rate;
        }
    }

    pub(super) fn add_response(&mut self, status: u16) {
        *self.summary.by_status.entry(status).or_default() += 1;
        self.summary.unanswered = self.summary.unanswered.saturating_sub(1);
    }
}
