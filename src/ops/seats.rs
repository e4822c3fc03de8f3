//! The connections that are open at once, which have a bound. Who comes when there are that many is let in all the
//! same, so that no client keeps a probe out, and the connection that is needed least goes. Addresses tell nothing:
//! behind a proxy, or on this host, all clients have the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Who has a seat.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By number: later ones have higher numbers.
    seats: BTreeMap<u64, Standing>,
    next: u64,
}

#[derive(Debug)]
struct Standing {
    /// Since when it waits for a request, or has one that is not answered.
    since: Instant,
    is_answering: bool,
    gone: CancellationToken,
}

/// A connection's place among the others. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    gone: CancellationToken,
    seats: Seats,
}

/// A request that is being answered, until this is dropped.
pub(super) struct Answering(Arc<Seat>);

impl Seats {
    /// So many, all free.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A seat for a new connection. If none is free, the connection that has been idle for longest loses its own, or
    /// where none is idle, the one whose request takes the longest.
    pub(super) fn take(&self, now: Instant) -> Arc<Seat> {
        let mut taken = self.taken();
        while taken.seats.len() >= self.most
            && let Some(number) = taken.least_needed()
            && let Some(standing) = taken.seats.remove(&number)
        {
            standing.gone.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        let gone = CancellationToken::new();
        let standing = Standing {
            since: now,
            is_answering: false,
            gone: gone.clone(),
        };
        taken.seats.insert(number, standing);
        Arc::new(Seat {
            number,
            gone,
            seats: self.clone(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn least_needed(&self) -> Option<u64> {
        self.seats
            .iter()
            .min_by_key(|(_, standing)| (standing.is_answering, standing.since))
            .map(|(number, _)| *number)
    }
}

impl Seat {
    /// Waits until the seat is lost to another connection.
    pub(super) async fn lost(&self) {
        self.gone.cancelled().await;
    }

    /// Notes that a request is being answered.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        self.note(true);
        Answering(Arc::clone(self))
    }

    fn note(&self, is_answering: bool) {
        if let Some(standing) = self.seats.taken().seats.get_mut(&self.number) {
            standing.since = Instant::now();
            standing.is_answering = is_answering;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().seats.remove(&self.number);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.note(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lost(seats: &[Arc<Seat>]) -> Vec<bool> {
        seats.iter().map(|seat| seat.gone.is_cancelled()).collect()
    }

    #[test]
    fn who_comes_gets_a_seat_and_who_has_been_idle_for_longest_loses_it() {
        let begun = Instant::now();
        let (seats, now) = (Seats::new(3), begun + Duration::from_secs(1));
        let mut all: Vec<_> = (0..3).map(|_| seats.take(begun)).collect();
        let answering = all[0].answer();
        all.push(seats.take(now));
        assert_eq!(lost(&all), [false, true, false, false]);
        all.push(seats.take(now));
        assert_eq!(lost(&all), [false, true, true, false, false]);
        // Who has been answered is idle again.
        drop(answering);
        let others = (all[3].answer(), all[4].answer());
        all.push(seats.take(now));
        assert_eq!(lost(&all), [true, true, true, false, false, false]);
        // Where nobody is idle, the longest answer is not waited for.
        let last = all[5].answer();
        all.push(seats.take(now));
        assert_eq!(lost(&all), [true, true, true, true, false, false, false]);
        drop((all, others, last));
        assert!(seats.taken().seats.is_empty());
    }
}
