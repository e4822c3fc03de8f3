//! How the fleet is doing, as the database has it: looked up for whoever asks, but not more often than once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::outbox::{AppLane, AppStatus, MinuteStats, Outbox, WorkerStatus};
use crate::pace::DbTime;

/// How old an answer may be.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long monitors wait for the database. They ask again by themselves.
const LANES_WITHIN: Duration = Duration::from_secs(3);
/// What the plots of the overview show, and the minute that has begun.
const SHOWN: Duration = Duration::from_secs(3_660);
/// Tries of one look. A connection that has died meanwhile shows in the statement, and those who look on have two.
const TRIES: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Fleet {
    lanes: Last<Option<Arc<[AppLane]>>>,
    overview: Last<Result<Arc<Overview>, Arc<sqlx::Error>>>,
}

/// All that the overview shows.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) apps: Vec<AppStatus>,
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) minutes: Vec<MinuteStats>,
    /// The database's time of the look.
    pub(super) at: DbTime,
}

impl Fleet {
    /// What each lane is doing, for monitors; none where the database does not say.
    pub(super) async fn lanes(&self, outbox: &Outbox) -> Option<Arc<[AppLane]>> {
        let look = async {
            let lanes = tokio::time::timeout(LANES_WITHIN, tried(|| outbox.lanes()));
            Some(lanes.await.ok()?.ok()?.into())
        };
        self.lanes.or(look).await
    }

    /// What people want to see of it.
    ///
    /// # Errors
    /// Where the database fails.
    pub(super) async fn overview(
        &self,
        outbox: &Outbox,
    ) -> Result<Arc<Overview>, Arc<sqlx::Error>> {
        let look = async {
            let overview = tried(|| overview(outbox)).await;
            overview.map(Arc::new).map_err(Arc::new)
        };
        self.overview.or(look).await
    }

    /// Looks again, for whoever comes next: something was changed here.
    pub(super) async fn forget(&self) {
        self.lanes.forget().await;
        self.overview.forget().await;
    }
}

async fn overview(outbox: &Outbox) -> Result<Overview, sqlx::Error> {
    Ok(Overview {
        apps: outbox.last_status().await?,
        workers: outbox.workers().await?,
        minutes: outbox.minute_stats(SHOWN).await?,
        at: outbox.viewed_at().await?,
    })
}

/// What was looked up last. Who comes while it is looked up waits for that.
#[derive(Debug)]
struct Last<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Last<T> {
    async fn forget(&self) {
        *self.0.lock().await = None;
    }

    async fn or(&self, look: impl Future<Output = T>) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return value.clone();
        }
        let value = look.await;
        *last = Some((Instant::now(), value.clone()));
        value
    }
}

/// Asks again where a connection has died meanwhile.
pub(super) async fn tried<T, E, F: Future<Output = Result<T, E>>>(
    look: impl Fn() -> F,
) -> Result<T, E> {
    let mut tries = 1;
    loop {
        match look().await {
            Err(_) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}
