//! Reports to the fleet that this worker is alive and how many of its messages were accepted, at most once a second. Without a
//! change, it reports every ten seconds. A worker that doubts or is aside reports each second, to read the counters of the
//! other workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Process;
use super::lane::Shared;
use super::panic_point::panic_point;

const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A worker whose counters do not change reports this often. Other workers count it as dead after 30 s.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(process: Arc<Process>) {
    // The last report of each app that the database has.
    let mut reported = HashMap::new();
    let mut last_success: Option<Instant> = None;
    loop {
        panic_point("reporter", 0);
        let clock = process.shared.outbox.clock().get();
        let stepped_at = clock.and_then(|clock| clock.stepped_at);
        // After a step of the database's clock, the last report has a wrong time, and this worker may count as dead.
        let is_due =
            last_success.is_none_or(|at| at.elapsed() >= ALIVE_EVERY || stepped_at > Some(at));
        if is_due {
            // If the registry was emptied, it lacks this worker's counters. Without a full report, another worker whose
            // calls fail would blame the API.
            reported.clear();
        }
        let reports: Vec<_> = process
            .lanes
            .values()
            .map(|lane| lane.report())
            .filter(|report| {
                let is_waiting = report.is_doubting || report.aside_reason.is_some();
                is_waiting || reported.get(&report.app) != Some(report)
            })
            .collect();
        if is_due || !reports.is_empty() {
            let Shared { outbox, config, .. } = &*process.shared;
            let served = process.lanes.keys().cloned().collect();
            let reporting = outbox.report_worker(process.id, config, served, &reports);
            // The claim loops log errors of the database.
            if let Ok(others) = reporting.await {
                for others in others {
                    if let Some(lane) = process.lanes.get(&others.app) {
                        lane.observe_others(others.accepted, others.serving).await;
                    }
                }
                last_success = Some(Instant::now());
                let reports = reports.into_iter();
                reported.extend(reports.map(|report| (report.app.clone(), report)));
            }
        }
        // After the first report of a doubt, the next one shows the results of the other workers in between.
        tokio::time::sleep(REPORT_EVERY).await;
    }
}
