//! Totals over all calls, also those that the ledger no longer keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::SlidingSecond;

/// The totals of a [`Ledger`](super::Ledger).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Microseconds from the ledger's start to this look at it.
    pub at_us: u64,
    /// Calls that arrived, refused ones included.
    pub calls: u64,
    /// Calls about which the API has decided. The others still wait for their body, or lost their client before.
    pub judged_calls: u64,
    /// Calls whose message the API took.
    pub accepted: u64,
    /// Messages accepted more than once. Equal app, kind, sender, target and payload make the same message.
    pub duplicates: u64,
    /// Requests that were no calls: unknown routes and methods.
    pub strays: u64,
    /// Calls that can still be listed.
    pub kept_calls: u64,
    /// Calls whose message could not be told apart from others, because the ledger was full: when this is not 0,
    /// `duplicates` is a lower bound.
    pub untracked_messages: u64,
    /// Connections that are open, those to the control API included.
    pub open_connections: u64,
    /// All connections that were ever made.
    pub connections: u64,
    /// The most that were open at once.
    pub most_connections: u64,
    /// The totals of each app ID; those beyond the first thousand stand together under `(others)`.
    pub apps: BTreeMap<String, AppSummary>,
}

/// The totals of one app ID.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppSummary {
    /// Calls that arrived, refused ones included.
    pub calls: u64,
    /// Calls whose message the API took.
    pub accepted: u64,
    /// Messages accepted more than once.
    pub duplicates: u64,
    /// Calls by the status they were answered with.
    pub by_status: BTreeMap<u16, u64>,
    /// Calls that have no answer, or none yet.
    pub unanswered: u64,
    /// The most arrivals in any sliding second, whatever their status.
    pub worst_sliding_second: u64,
    /// The most accepted calls in any sliding second, by their arrival.
    pub worst_sliding_second_accepted: u64,
    /// Microseconds from the ledger's start to the first arrival.
    pub first_at_us: u64,
    /// Microseconds from the ledger's start to the last arrival.
    pub last_at_us: u64,
    /// Arrivals per second between the first and the last; 0 for less than two calls.
    pub calls_per_s: f64,
}

/// The running totals of one app.
#[derive(Debug, Default)]
pub(super) struct AppTotals {
    calls: u64,
    pub(super) accepted: u64,
    duplicates: u64,
    by_status: BTreeMap<u16, u64>,
    arrivals: SlidingSecond,
    worst: usize,
    acceptances: SlidingSecond,
    worst_accepted: usize,
    span: Option<(Duration, Duration)>,
}

impl AppTotals {
    pub(super) fn arrived(&mut self, at: Duration) {
        self.calls += 1;
        self.worst = self.worst.max(self.arrivals.peak_around(at) + 1);
        self.arrivals.insert(at);
        self.span = Some(
            self.span
                .map_or((at, at), |(first, last)| (first.min(at), last.max(at))),
        );
    }

    /// Counts an accepted call; `repeats` when it is the second one of its message.
    pub(super) fn accepted(&mut self, at: Duration, repeats: bool) {
        self.accepted += 1;
        self.duplicates += u64::from(repeats);
        self.worst_accepted = self
            .worst_accepted
            .max(self.acceptances.peak_around(at) + 1);
        self.acceptances.insert(at);
    }

    pub(super) fn responded(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }

    pub(super) fn summary(&self) -> AppSummary {
        let (first, last) = self.span.unwrap_or_default();
        let answered: u64 = self.by_status.values().sum();
        AppSummary {
            calls: self.calls,
            accepted: self.accepted,
            duplicates: self.duplicates,
            by_status: self.by_status.clone(),
            unanswered: self.calls.saturating_sub(answered),
            worst_sliding_second: self.worst as u64,
            worst_sliding_second_accepted: self.worst_accepted as u64,
            first_at_us: micros(first),
            last_at_us: micros(last),
            calls_per_s: rate(self.calls, last.saturating_sub(first)),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `calls` arrivals have one interval less between them.
fn rate(calls: u64, span: Duration) -> f64 {
    if calls < 2 || span.is_zero() {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss)] // A rate needs no 53 bits.
    let intervals = (calls - 1) as f64;
    intervals / span.as_secs_f64()
}
