//! Reports once a second that this worker is alive and how many of its messages were accepted, and reads the counters of the
//! other workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error_text::database_error_text;
use crate::outbox::{AppReport, Outbox, WorkerIdentity};
use crate::worker::lane::Lane;
use crate::worker::panic_point::panic_point;

/// The shortest time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A worker whose counters do not change reports this often. Others take it for dead after 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// The longest wait for the last report.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// Reports for all lanes of a process.
pub(in crate::worker) struct Reporter {
    outbox: Arc<Outbox>,
    lanes: HashMap<String, Arc<Lane>>,
    worker: WorkerIdentity,
    /// The last report of each app that the database has.
    reported: HashMap<String, AppReport>,
}

impl Reporter {
    pub(in crate::worker) fn new(
        outbox: &Arc<Outbox>,
        lanes: &[Arc<Lane>],
        worker: WorkerIdentity,
    ) -> Self {
        let by_app = |lane: &Arc<Lane>| (lane.app.clone(), Arc::clone(lane));
        Self {
            outbox: Arc::clone(outbox),
            lanes: lanes.iter().map(by_app).collect(),
            worker,
            reported: HashMap::new(),
        }
    }

    /// Reports until the shutdown, and then takes this worker out of the registry.
    pub(in crate::worker) async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.report_until()).await;
        let retiring = self.outbox.retire_worker(self.worker.id);
        tokio::time::timeout(LAST_REPORT, retiring).await.ok();
    }

    async fn report_until(&mut self) {
        let mut last_success: Option<Instant> = None;
        loop {
            panic_point("reporter", 0);
            let clock = self.outbox.clock().get();
            let stepped_at = clock.and_then(|clock| clock.stepped_at());
            // After a step of the database's clock, the last report has a wrong time, and this worker may count as dead.
            let is_due =
                last_success.is_none_or(|at| at.elapsed() >= ALIVE_EVERY || stepped_at > Some(at));
            if is_due {
                // If the registry was emptied, it lacks this worker's counters. Without a full report, another worker whose
                // calls fail would blame the API.
                self.reported.clear();
            }
            let reports = self.changed();
            if is_due || !reports.is_empty() {
                match self.report(reports).await {
                    Ok(()) => last_success = Some(Instant::now()),
                    Err(error) => tracing::debug!(
                        event = "report_failed",
                        error = database_error_text(&error),
                        "this worker can't report to the others: tried again"
                    ),
                }
            }
            // After the first report of a doubt, the next one shows what the other workers did in between.
            tokio::time::sleep(REPORT_EVERY).await;
        }
    }

    /// The reports that differ from what the database has, and those of workers that wait for the others.
    fn changed(&self) -> Vec<AppReport> {
        let reports = self.lanes.values().map(|lane| lane.report());
        reports
            .filter(|report| {
                report.is_doubting
                    || report.aside_reason.is_some()
                    || self.reported.get(&report.app) != Some(report)
            })
            .collect()
    }

    async fn report(&mut self, reports: Vec<AppReport>) -> Result<(), sqlx::Error> {
        let others = self.outbox.report_worker(&self.worker, &reports).await?;
        let reported = reports
            .into_iter()
            .map(|report| (report.app.clone(), report));
        self.reported.extend(reported);
        for others in others {
            let Some(lane) = self.lanes.get(&others.app) else {
                continue;
            };
            let decision =
                lane.breaker()
                    .observe_others(others.accepted(), others.serving(), Instant::now());
            if let Some(decision) = decision {
                lane.decide(decision).await;
            }
        }
        Ok(())
    }
}
