//! Shares results of the database among requests. Otherwise each open page, scrape and probe would query the database, and
//! all of them would compete for the two monitoring connections.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

const FRESH_FOR: Duration = Duration::from_secs(1);

/// The last result of a query, which runs at most once a second. Concurrent requests wait for one query. The result is missing
/// if the request that made the query was dropped.
#[derive(Debug)]
pub(super) struct Cached<T>(Mutex<Option<(Instant, Option<T>)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cached<T> {
    pub(super) async fn get_or(&self, query: impl Future<Output = T>) -> T {
        let mut cached = self.0.lock().await;
        match &*cached {
            Some((at, Some(value))) if at.elapsed() < FRESH_FOR => return value.clone(),
            // Without this wait, clients that hang up would each start a query.
            Some((at, None)) => tokio::time::sleep_until((*at + FRESH_FOR).into()).await,
            _ => {}
        }
        *cached = Some((Instant::now(), None));
        let value = query.await;
        *cached = Some((Instant::now(), Some(value.clone())));
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
        *cached.0.lock().await = Some((old, Some(2)));
        assert_eq!(request().await, 3);
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_starts_no_more_queries_than_others() {
        const SOON: Duration = Duration::from_millis(5);
        let cached = Cached::default();
        let begun = Instant::now();
        let hung = tokio::time::timeout(SOON, cached.get_or(std::future::pending()));
        assert_eq!(hung.await.ok(), None::<u32>);
        assert_eq!(cached.get_or(async { 2 }).await, 2);
        assert!(begun.elapsed() >= FRESH_FOR);
    }
}
