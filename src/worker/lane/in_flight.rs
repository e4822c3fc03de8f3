//! The messages that this worker has in flight for one app: from their claim until they are recorded. The limits:
//!
//! - `max_in_flight` messages bound memory and connections.
//! - A destination with an eighth of the capacity is crowded, and claims pass over its messages. Otherwise a destination that
//!   answers slowly would use up the capacity. A claim takes at most three eighths, because all its messages may have one
//!   destination. So one destination has at most half of the capacity.
//! - If calls are open, and the API answered none for two seconds, the API is silent. The worker then starts one call a
//!   second instead of using up the capacity until the calls time out. Calls that wait for their recipient do not count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A destination that has the capacity divided by this number is crowded.
const CROWDED_SHARE: usize = 8;
const SILENT_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) max: usize,
    counts: Mutex<Counts>,
    /// Wakes a loop that waits for capacity, or for the circuit breaker.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    messages: usize,
    by_destination: HashMap<String, usize>,
    open_calls: usize,
    /// When the API last answered, or when the first open call began, if that is later. None: no call is open.
    waiting_since: Option<Instant>,
}

impl InFlight {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            counts: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.counts.lock().messages
    }

    /// Admits a message. Only the lane's loop calls this, for at most as many messages as are `free`.
    pub(crate) fn admit(self: &Arc<Self>, destination: &str) -> CapacityPermit {
        let mut counts = self.counts.lock();
        counts.messages += 1;
        let destination = destination.to_owned();
        *counts
            .by_destination
            .entry(destination.clone())
            .or_default() += 1;
        CapacityPermit {
            in_flight: Arc::clone(self),
            destination,
        }
    }

    pub(crate) fn free(&self) -> usize {
        let of_one_claim = (self.max * 3 / CROWDED_SHARE).max(1);
        self.max.saturating_sub(self.count()).min(of_one_claim)
    }

    pub(crate) fn crowded(&self) -> Vec<String> {
        let share = self.max.div_ceil(CROWDED_SHARE);
        let counts = self.counts.lock();
        let crowded = counts
            .by_destination
            .iter()
            .filter(|(_, count)| **count >= share);
        crowded.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn begin_call(&self, now: Instant) -> OpenCall<'_> {
        let mut counts = self.counts.lock();
        counts.waiting_since.get_or_insert(now);
        counts.open_calls += 1;
        OpenCall(self)
    }

    pub(crate) fn answered(&self, now: Instant) {
        let mut counts = self.counts.lock();
        counts.waiting_since = (counts.open_calls > 0).then_some(now);
    }

    pub(crate) fn is_api_silent(&self, now: Instant) -> bool {
        let waiting_since = self.counts.lock().waiting_since;
        waiting_since.is_some_and(|since| now.saturating_duration_since(since) > SILENT_AFTER)
    }
}

/// A message's share of the capacity, from its claim until it is recorded.
#[derive(Debug)]
pub(crate) struct CapacityPermit {
    in_flight: Arc<InFlight>,
    destination: String,
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        let mut counts = self.in_flight.counts.lock();
        counts.messages -= 1;
        if let Some(count) = counts.by_destination.get_mut(&self.destination) {
            *count -= 1;
            if *count == 0 {
                counts.by_destination.remove(&self.destination);
            }
        }
        drop(counts);
        self.in_flight.changed.notify_one();
    }
}

#[derive(Debug)]
pub(crate) struct OpenCall<'a>(&'a InFlight);

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.open_calls -= 1;
        if counts.open_calls == 0 {
            counts.waiting_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_with_an_eighth_of_the_capacity_is_crowded() {
        let in_flight = Arc::new(InFlight::new(64));
        let mut permits = Vec::new();
        for _ in 0..8 {
            assert!(in_flight.crowded().is_empty());
            permits.push(in_flight.admit("slow"));
        }
        permits.push(in_flight.admit("other"));
        assert_eq!(in_flight.crowded(), ["slow"]);
        permits.remove(0);
        assert!(in_flight.crowded().is_empty());
        assert_eq!(in_flight.count(), 8);
    }

    #[test]
    fn a_claim_fills_at_most_half_of_the_capacity_with_one_destination() {
        let in_flight = Arc::new(InFlight::new(16));
        let mut permits = Vec::new();
        while in_flight.crowded().is_empty() {
            permits.push(in_flight.admit("slow"));
        }
        permits.pop();
        // The claim after the last one that found the destination uncrowded.
        let claim = in_flight.free();
        permits.extend((0..claim).map(|_| in_flight.admit("slow")));
        assert!(permits.len() <= 8, "{}", permits.len());
        while in_flight.free() > 0 {
            permits.push(in_flight.admit("other"));
        }
        assert_eq!(permits.len(), 16, "no capacity is left");
        drop(permits);
        assert_eq!(in_flight.count(), 0);
        assert!(in_flight.counts.lock().by_destination.is_empty());
    }

    #[test]
    fn an_api_is_silent_while_calls_are_open_and_none_is_answered() {
        let begun = Instant::now();
        let later = begun + SILENT_AFTER + Duration::from_millis(1);
        let in_flight = InFlight::new(8);
        assert!(!in_flight.is_api_silent(later), "no call is open");
        let first = in_flight.begin_call(begun);
        let second = in_flight.begin_call(later);
        assert!(!in_flight.is_api_silent(begun + SILENT_AFTER));
        assert!(in_flight.is_api_silent(later));
        in_flight.answered(later);
        drop(first);
        assert!(!in_flight.is_api_silent(later));
        assert!(in_flight.is_api_silent(later + SILENT_AFTER * 2));
        drop(second);
        assert!(!in_flight.is_api_silent(later + SILENT_AFTER * 2));
    }
}
