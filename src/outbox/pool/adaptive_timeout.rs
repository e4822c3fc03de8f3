//! A timeout that doubles while statements miss it, so that a slow database still gets its chance.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Deadline, STATEMENT_TIMEOUT, is_timeout};

/// The timeout for statements of one kind. It doubles with each statement that misses it, because a database that is
/// only slow would otherwise never finish one.
#[derive(Debug, Default)]
pub(crate) struct AdaptiveTimeout(AtomicU32);

impl AdaptiveTimeout {
    /// At most eight times as long as usual.
    const MAX_DOUBLINGS: u32 = 3;
    /// The server's timeout for a statement that isolates messages is at least so long: longer than the wait for a lock and
    /// the second after which `signaling.is_slow` counts a message as slow.
    const MIN_ISOLATING: Duration = Duration::from_secs(4);

    /// The deadline of the next statement. Where it isolates messages, the server's timeout comes first, and tells the
    /// function which message keeps the statement waiting.
    pub(crate) fn deadline(&self, isolates: bool) -> Deadline {
        if isolates {
            Deadline::of_server((self.timeout() / 4).max(Self::MIN_ISOLATING))
        } else {
            Deadline::of_client(self.timeout())
        }
    }

    fn timeout(&self) -> Duration {
        STATEMENT_TIMEOUT * 2_u32.pow(self.0.load(Ordering::Relaxed).min(Self::MAX_DOUBLINGS))
    }

    /// Takes in how a statement went that had something to do.
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
