//! Deadlines of statements: a fixed one, and one that adapts to a slow database.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{STATEMENT_TIMEOUT, is_timeout};

/// The worker sees its own error first. The server ends the statement so long after it.
const SERVER_GRACE: Duration = Duration::from_millis(500);
/// The worker waits so long for the response of a function that catches the server's timeout.
const FUNCTION_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The worker's own timeout.
    pub(super) client: Duration,
    /// The server's `statement_timeout`.
    pub(super) server: Duration,
}

impl Deadline {
    /// The worker times out first. The server ends the statement soon after; otherwise an abandoned statement would keep its
    /// locks and its connection.
    pub(in crate::outbox) const fn of_client(client: Duration) -> Self {
        let server = client.saturating_add(SERVER_GRACE);
        Self { client, server }
    }

    /// The server times out first. A function of the schema learns from the timeout which message is slow, and the worker
    /// waits for its response.
    pub(in crate::outbox) const fn of_server(server: Duration) -> Self {
        let client = server.saturating_add(FUNCTION_GRACE);
        Self { client, server }
    }
}

/// A timeout that doubles with each statement that misses it, because a database that is only slow would otherwise never
/// finish one.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveTimeout(AtomicU32);

impl AdaptiveTimeout {
    const MAX_DOUBLINGS: u32 = 3;
    /// The server's timeout is never shorter for a statement that changes one message at a time: it is longer than the wait for a lock,
    /// and than the second after which `signaling.is_slow` counts a message as slow.
    const MIN_ISOLATING: Duration = Duration::from_secs(4);

    /// The deadline of the next statement. With `one_by_one`, the server times out first, which tells the function
    /// the slow message.
    pub(crate) fn deadline(&self, one_by_one: bool) -> Deadline {
        let doublings = self.0.load(Ordering::Relaxed).min(Self::MAX_DOUBLINGS);
        let timeout = STATEMENT_TIMEOUT * 2_u32.pow(doublings);
        if one_by_one {
            Deadline::of_server((timeout / 4).max(Self::MIN_ISOLATING))
        } else {
            Deadline::of_client(timeout)
        }
    }

    pub(crate) fn observe<T>(&self, result: &Result<T, sqlx::Error>) {
        match result {
            Ok(_) => self.0.store(0, Ordering::Relaxed),
            Err(error) if is_timeout(error) => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}
