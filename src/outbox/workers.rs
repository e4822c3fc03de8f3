//! The registry of workers: each worker reports that it is alive, with the counters of its apps.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Outbox, column};
use crate::config::WorkerConfig;

/// This worker's counters of one app, since the worker started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppReport {
    pub(crate) app: String,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    /// The worker's calls fail, and it is finding out whether the API or the worker itself is at fault.
    pub(crate) is_doubting: bool,
    pub(crate) aside_reason: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct OthersReport {
    pub(crate) app: String,
    #[sqlx(rename = "others_accepted", try_from = "i64")]
    pub(crate) accepted: u64,
    #[sqlx(rename = "others", try_from = "i32")]
    pub(crate) serving: u32,
}

impl Outbox {
    /// Registers that this worker is alive, with its counters. Returns the counters of the other workers of the same apps.
    pub(crate) async fn report_worker(
        &self,
        id: Uuid,
        config: &WorkerConfig,
        served: Vec<String>,
        reports: &[AppReport],
    ) -> Result<Vec<OthersReport>, sqlx::Error> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let call = call!(
            report_worker,
            worker_id = id,
            name = config.name.clone(),
            version = env!("CARGO_PKG_VERSION"),
            host = config.host.clone(),
            served = served,
            apps = column(reports, |report| report.app.clone()),
            accepted = column(reports, |report| count(report.accepted)),
            failed = column(reports, |report| count(report.failed)),
            doubting = column(reports, |report| report.is_doubting),
            aside_reasons = column(reports, |report| report.aside_reason.clone()),
            environment = config.environment.clone(),
        );
        self.pool.call(call).await?.decode()
    }

    pub(crate) async fn retire_worker(&self, id: Uuid) -> Result<(), sqlx::Error> {
        let call = call!(retire_worker, worker_id = id);
        self.pool.call(call).await.map(drop)
    }
}
