//! Bounds the open connections. A new connection replaces an old one, because refusing it would let idle clients keep
//! out a probe. Addresses are no help: behind a proxy or on this host, all clients share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct ConnectionLimit {
    max: usize,
    /// Oldest first.
    open: Mutex<Vec<Arc<OpenConnection>>>,
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Connection(Arc<OpenConnection>);

#[derive(Debug, Default)]
struct OpenConnection {
    closed: CancellationToken,
    is_busy: AtomicBool,
}

impl ConnectionLimit {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            open: Mutex::default(),
        }
    }

    /// Adds a connection. At the limit, evicts the oldest connection without a request in progress, or else the oldest.
    pub(super) fn add(&self) -> Connection {
        let mut open = self.open.lock();
        open.retain(|connection| !connection.closed.is_cancelled());
        if open.len() >= self.max {
            let idle = open
                .iter()
                .position(|connection| !connection.is_busy.load(Ordering::Relaxed));
            open.remove(idle.unwrap_or(0)).closed.cancel();
        }
        let connection = Arc::new(OpenConnection::default());
        open.push(Arc::clone(&connection));
        Connection(connection)
    }
}

impl Connection {
    pub(super) async fn evicted(&self) {
        self.0.closed.cancelled().await;
    }

    pub(super) fn set_busy(&self, is_busy: bool) {
        self.0.is_busy.store(is_busy, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(connections: &[Connection]) -> Vec<bool> {
        connections
            .iter()
            .map(|connection| connection.0.closed.is_cancelled())
            .collect()
    }

    #[test]
    fn a_new_connection_evicts_the_oldest_idle_one_or_else_the_oldest() {
        let limit = ConnectionLimit::new(3);
        let mut all: Vec<_> = (0..3).map(|_| limit.add()).collect();
        all[0].set_busy(true);
        all.push(limit.add());
        assert_eq!(evicted(&all), [false, true, false, false]);
        all[2].set_busy(true);
        all[3].set_busy(true);
        all.push(limit.add());
        assert_eq!(evicted(&all), [true, true, false, false, false]);
        // A closed connection makes room.
        drop(all.remove(4));
        all.push(limit.add());
        assert_eq!(evicted(&all), [true, true, false, false, false]);
    }
}
