//! Answers from the database that requests share. Without it, each open page, scrape and probe would query the database, and
//! all of them would compete for the two monitoring connections.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

const FRESH_FOR: Duration = Duration::from_secs(1);

/// A value that is queried at most once a second. Concurrent requests wait for one query.
#[derive(Debug)]
pub(super) struct Cached<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cached<T> {
    pub(super) async fn get_or(&self, query: impl Future<Output = T>) -> T {
        let mut cached = self.0.lock().await;
        let last = cached.as_ref();
        if let Some((_, value)) = last.filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return value.clone();
        }
        let value = query.await;
        *cached = Some((Instant::now(), value.clone()));
        value
    }

    /// Makes the next request query the database, because an operator has changed something there.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn concurrent_requests_share_a_query_until_it_is_old_or_forgotten() {
        let (cached, queries) = (Cached::default(), Cell::new(0));
        let request = async || {
            let query = async {
                tokio::task::yield_now().await;
                queries.set(queries.get() + 1);
                queries.get()
            };
            cached.get_or(query).await
        };
        let answers = tokio::join!(request(), request(), request());
        assert_eq!(answers, (1, 1, 1));
        cached.forget().await;
        assert_eq!(request().await, 2);
        let old = Instant::now().checked_sub(FRESH_FOR).expect("a time");
        *cached.0.lock().await = Some((old, 2));
        assert_eq!(request().await, 3);
    }
}
