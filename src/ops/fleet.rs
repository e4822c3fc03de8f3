//! The state of the fleet in the database. Requests share a lookup that is at most a second old, so that open pages and
//! monitors add no load to the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::error_text::database_error_text;
use crate::outbox::{AppLane, AppStatus, MinuteStats, Outbox, WorkerStatus};
use crate::pace::DbTime;

const FRESH_FOR: Duration = Duration::from_secs(1);
/// Prometheus repeats a scrape by itself.
const LANES_TIMEOUT: Duration = Duration::from_secs(3);
/// The charts show an hour, and the current minute is not over.
const CHARTS_SPAN: Duration = Duration::from_mins(61);

#[derive(Debug, Default)]
pub(super) struct Fleet {
    lanes: Cached<Option<Arc<[AppLane]>>>,
    overview: Cached<Result<Arc<Overview>, String>>,
}

#[derive(Debug)]
pub(super) struct Overview {
    pub(super) apps: Vec<AppStatus>,
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) minutes: Vec<MinuteStats>,
    pub(super) at: DbTime,
}

impl Fleet {
    /// The lanes of all apps. None if the database fails or is slow.
    pub(super) async fn lanes(&self, outbox: &Outbox) -> Option<Arc<[AppLane]>> {
        let query = async {
            let lanes = tokio::time::timeout(LANES_TIMEOUT, outbox.lanes()).await;
            Some(lanes.ok()?.ok()?.into())
        };
        self.lanes.get_or(query).await
    }

    pub(super) async fn overview(&self, outbox: &Outbox) -> Result<Arc<Overview>, String> {
        let query = async {
            let overview = Overview::read(outbox).await.map(Arc::new);
            overview.map_err(|error| database_error_text(&error))
        };
        self.overview.get_or(query).await
    }

    /// Makes the next request query the database, because an operator has changed something here.
    pub(super) async fn forget(&self) {
        self.lanes.forget().await;
        self.overview.forget().await;
    }
}

impl Overview {
    async fn read(outbox: &Outbox) -> Result<Self, sqlx::Error> {
        Ok(Self {
            apps: outbox.last_status().await?,
            workers: outbox.workers().await?,
            minutes: outbox.minute_stats(CHARTS_SPAN).await?,
            at: outbox.viewed_at().await?,
        })
    }
}

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
        if let Some((at, value)) = &*cached
            && at.elapsed() < FRESH_FOR
        {
            return value.clone();
        }
        let value = query.await;
        *cached = Some((Instant::now(), value.clone()));
        value
    }

    async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
