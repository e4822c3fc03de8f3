//! The connections that are open at once, which have a bound. Who comes when there are that many is let in all the
//! same, so that no client keeps a probe out, and the connection that is needed least goes. Addresses tell nothing:
//! behind a proxy, or on this host, all clients have the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub(super) struct ConnectionLimit {
    most: usize,
    taken: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// By number: later ones have higher numbers.
    slots: BTreeMap<u64, OpenConnection>,
    next: u64,
}

#[derive(Debug)]
struct OpenConnection {
    /// Since when it waits for a request, or has one that is not answered.
    since: Instant,
    is_in_request: bool,
    gone: CancellationToken,
}

/// A connection's place among the others. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    number: u64,
    gone: CancellationToken,
    slots: ConnectionLimit,
}

/// A request that is being answered, until this is dropped.
pub(super) struct InRequest(Arc<ConnectionSlot>);

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A slot for a new connection. If none is free, the connection that has been idle for longest loses its own, or
    /// where none is idle, the one whose request takes the longest.
    pub(super) fn take(&self, now: Instant) -> Arc<ConnectionSlot> {
        let mut taken = self.taken();
        while taken.slots.len() >= self.most
            && let Some(number) = taken.eviction_candidate()
            && let Some(connection) = taken.slots.remove(&number)
        {
            connection.gone.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        let gone = CancellationToken::new();
        let connection = OpenConnection {
            since: now,
            is_in_request: false,
            gone: gone.clone(),
        };
        taken.slots.insert(number, connection);
        Arc::new(ConnectionSlot {
            number,
            gone,
            slots: self.clone(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, OpenConnections> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn eviction_candidate(&self) -> Option<u64> {
        self.slots
            .iter()
            .min_by_key(|(_, connection)| (connection.is_in_request, connection.since))
            .map(|(number, _)| *number)
    }
}

impl ConnectionSlot {
    /// Waits until the slot is lost to another connection.
    pub(super) async fn evicted(&self) {
        self.gone.cancelled().await;
    }

    /// Notes that a request is being answered.
    pub(super) fn begin_request(self: &Arc<Self>) -> InRequest {
        self.note(true);
        InRequest(Arc::clone(self))
    }

    fn note(&self, is_in_request: bool) {
        if let Some(connection) = self.slots.taken().slots.get_mut(&self.number) {
            connection.since = Instant::now();
            connection.is_in_request = is_in_request;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.taken().slots.remove(&self.number);
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.note(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lost(slots: &[Arc<ConnectionSlot>]) -> Vec<bool> {
        slots.iter().map(|slot| slot.gone.is_cancelled()).collect()
    }

    #[test]
    fn who_comes_gets_a_seat_and_who_has_been_idle_for_longest_loses_it() {
        let begun = Instant::now();
        let (slots, now) = (ConnectionLimit::new(3), begun + Duration::from_secs(1));
        let mut all: Vec<_> = (0..3).map(|_| slots.take(begun)).collect();
        let answering = all[0].begin_request();
        all.push(slots.take(now));
        assert_eq!(lost(&all), [false, true, false, false]);
        all.push(slots.take(now));
        assert_eq!(lost(&all), [false, true, true, false, false]);
        // Who has been answered is idle again.
        drop(answering);
        let others = (all[3].begin_request(), all[4].begin_request());
        all.push(slots.take(now));
        assert_eq!(lost(&all), [true, true, true, false, false, false]);
        // Where nobody is idle, the longest answer is not waited for.
        let last = all[5].begin_request();
        all.push(slots.take(now));
        assert_eq!(lost(&all), [true, true, true, true, false, false, false]);
        drop((all, others, last));
        assert!(slots.taken().slots.is_empty());
    }
}
