//! The workers in the registry: which are alive, and how their calls go.

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::rows;
use crate::pace::DbTime;

/// A worker that dies again and again leaves a row each time, until a day has passed.
const MAX_WORKERS: i64 = 500;

/// A worker that has not retired: it is alive, or it has died within about a day.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct WorkerStatus {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) environment: Option<String>,
    /// The worker has reported within 30 seconds.
    pub(crate) is_alive: bool,
    pub(crate) started_at: DbTime,
    pub(crate) seen_at: DbTime,
    pub(crate) seen_ago_s: f64,
    #[sqlx(json)]
    pub(crate) apps: Vec<ServedApp>,
}

/// How the calls of one worker go for one app, since the worker was started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServedApp {
    pub(crate) app: String,
    /// Messages that the API has accepted.
    pub(crate) accepted: u64,
    /// Attempts that failed.
    pub(crate) failed: u64,
    /// The worker's calls fail, and it waits to see how the calls of other workers go.
    pub(crate) is_doubting: bool,
    pub(crate) stepped_aside_at: Option<DbTime>,
    pub(crate) stepped_aside_reason: Option<String>,
}

/// The workers that serve one app and are alive.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LaneWorkers {
    /// Counts the workers of the app's environment alone.
    pub(crate) alive: u32,
    /// The environments of workers that refuse the app, because it belongs to another one: each once, in words.
    pub(crate) refusing: Vec<String>,
    /// Each version once.
    pub(crate) versions: Vec<String>,
    /// The workers that have stepped aside.
    pub(crate) aside: Vec<AsideWorker>,
}

/// A worker that leaves an app to the others, because its own calls fail while theirs are accepted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AsideWorker {
    pub(crate) name: String,
    pub(crate) since: DbTime,
    pub(crate) reason: String,
}

impl Outbox {
    /// The workers of the fleet, those that are alive first.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerStatus>, sqlx::Error> {
        let workers = query(include_str!("workers.sql")).bind(MAX_WORKERS);
        self.read(async |session| rows(session, workers).await)
            .await
    }
}
