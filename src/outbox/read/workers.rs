use serde::{Deserialize, Serialize};
use sqlx::{FromRow, query};

use crate::outbox::Outbox;
use crate::pace::DbTime;

/// A worker that keeps dying leaves a row each time, for a day.
const MAX_WORKERS: i64 = 500;

/// A worker that is alive, or that died within about a day.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct WorkerStatus {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) environment: Option<String>,
    /// True for 30 seconds after `seen_at`.
    pub(crate) is_alive: bool,
    pub(crate) started_at: DbTime,
    pub(crate) seen_at: DbTime,
    pub(crate) seen_ago_s: f64,
    #[sqlx(json)]
    pub(crate) apps: Vec<ServedApp>,
}

/// A worker's counters of one app, since the worker started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServedApp {
    pub(crate) app: String,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    pub(crate) is_doubting: bool,
    pub(crate) stepped_aside_at: Option<DbTime>,
    pub(crate) stepped_aside_reason: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LaneWorkers {
    /// Live workers of the app's environment.
    pub(crate) alive: u32,
    /// Other environments whose workers refuse to send the app's messages.
    pub(crate) refusing: Vec<String>,
    /// Live workers that have stepped aside.
    pub(crate) aside: u32,
}

impl Outbox {
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerStatus>, sqlx::Error> {
        let workers = query(include_str!("workers.sql")).bind(MAX_WORKERS);
        self.read_rows(workers).await
    }
}
