//! The registry of workers: each worker reports that it is alive, with the counters of its apps.

use sqlx::FromRow;
use uuid::Uuid;

use super::Outbox;
use super::pool::Call;
use super::pool::statement::Statement;

/// A worker, as it registers.
#[derive(Debug, Clone)]
pub(crate) struct WorkerIdentity {
    /// Fresh for each start.
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) environment: Option<String>,
    pub(crate) apps: Vec<String>,
}

/// How the calls of one app go in this worker, since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppReport {
    pub(crate) app: String,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    /// Its calls fail, and it is finding out whether the API or the worker itself is at fault.
    pub(crate) is_doubting: bool,
    /// Why it leaves the app to the others.
    pub(crate) aside_reason: Option<String>,
}

/// How the calls of one app go in the other workers.
#[derive(Debug, FromRow)]
pub(crate) struct OthersReport {
    pub(crate) app: String,
    others_accepted: i64,
    others: i32,
}

impl OthersReport {
    /// How many messages the API has accepted from them.
    pub(crate) fn accepted(&self) -> u64 {
        u64::try_from(self.others_accepted).unwrap_or(0)
    }

    /// How many other workers serve the app.
    pub(crate) fn serving(&self) -> u32 {
        u32::try_from(self.others).unwrap_or(0)
    }
}

impl Outbox {
    /// Writes down that a worker is alive, and how its calls go. Returns how those of the others go, for the same apps.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn report_worker(
        &self,
        worker: &WorkerIdentity,
        reports: &[AppReport],
    ) -> Result<Vec<OthersReport>, sqlx::Error> {
        fn column<T>(reports: &[AppReport], value: impl Fn(&AppReport) -> T) -> Vec<T> {
            reports.iter().map(value).collect()
        }
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let call = Call::new("report_worker")
            .with("worker_id", worker.id)
            .with("name", worker.name.clone())
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("host", worker.host.clone())
            .with("served", worker.apps.clone())
            .with("apps", column(reports, |report| report.app.clone()))
            .with("accepted", column(reports, |report| count(report.accepted)))
            .with("failed", column(reports, |report| count(report.failed)))
            .with("doubting", column(reports, |report| report.is_doubting))
            .with(
                "aside_reasons",
                column(reports, |report| report.aside_reason.clone()),
            )
            .with("environment", worker.environment.clone());
        self.pool().call(Statement::Lane, call).await?.decode()
    }

    /// Takes a worker that stops out of the registry.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn retire_worker(&self, id: Uuid) -> Result<(), sqlx::Error> {
        let call = Call::new("retire_worker").with("worker_id", id);
        self.pool().call(Statement::Lane, call).await?;
        Ok(())
    }
}
