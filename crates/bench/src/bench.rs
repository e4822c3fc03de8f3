//! Runs the scenarios: each case the given number of times, in turn, and again where the machine disturbed a run.

use std::time::Duration;

use testkit::SchedulerStalls;
use tokio_util::sync::CancellationToken;

use crate::database_server::DatabaseServer;
use crate::drain::SchedulerStalled;
use crate::measurements::Measurements;
use crate::report::{Report, ScenarioReport};
use crate::scenario::{Case, CaseOptions, Scenario};
use crate::worker::Worker;

/// How many times a run is tried that a scheduler stall disturbs.
const MAX_TRIES: u32 = 4;
/// How long the idle machine is observed for scheduler stalls before the first run.
const IDLE_OBSERVATION: Duration = Duration::from_secs(2);

/// A benchmark: its scenarios, how often each runs, and at which scale.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) scenarios: Vec<Scenario>,
    /// The workers to compare. The targets are those of the last one.
    pub(crate) workers: Vec<Worker>,
    /// Runs of each case.
    pub(crate) runs: u32,
    /// Runs of each case of a scenario that compares pairs.
    pub(crate) pairs: u32,
    pub(crate) case_options: CaseOptions,
}

impl Bench {
    /// Measures, and writes the progress to standard error. `shutdown` ends the benchmark with the scenarios measured
    /// so far. A process that fails or a broken promise (a message lost or sent twice, a call above the limit) fails
    /// its scenario; the report has the reason.
    ///
    /// # Errors
    /// If the database server can't be started or stopped.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let server = DatabaseServer::start().await?;
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            workers: self.workers.clone(),
            runs: self.runs,
            pairs: self.pairs,
            scale: self.case_options.scale,
            was_interrupted: false,
            postgres: server.version().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            idle_stall_ms: idle_stall().await.as_secs_f64() * 1e3,
            scenarios: Vec::new(),
        };
        if !report.machine_is_quiet() {
            eprintln!(
                "warning: this machine is not quiet: while it was idle, a processor was not available for {:.0} ms; \
                 times will be rough, and the pace too low",
                report.idle_stall_ms
            );
        }
        for &scenario in &self.scenarios {
            let cases = scenario.cases(self.case_options, &self.workers);
            let mut runs = vec![Vec::new(); cases.len()];
            let mut repeated = Vec::new();
            let running = self.take_runs(scenario, &cases, &mut runs, &mut repeated, &server);
            let ended = shutdown.run_until_cancelled(running).await;
            let failure = ended
                .and_then(Result::err)
                .map(|error| format!("{error:#}"));
            report.was_interrupted = shutdown.is_cancelled();
            if failure.is_some() || runs.iter().all(|runs| !runs.is_empty()) {
                report.scenarios.push(ScenarioReport {
                    repeated,
                    failure,
                    ..ScenarioReport::of(scenario, &self.workers, &cases, runs)
                });
            }
            if report.was_interrupted {
                eprintln!("interrupted; a second signal ends the benchmark at once");
                break;
            }
            server.drop_databases().await?;
        }
        server.stop().await?;
        Ok(report)
    }

    async fn take_runs(
        &self,
        scenario: Scenario,
        cases: &[Case],
        runs: &mut [Vec<Measurements>],
        repeated: &mut Vec<String>,
        server: &DatabaseServer,
    ) -> anyhow::Result<()> {
        let number = match scenario {
            Scenario::SnapshotDrain => self.pairs,
            _ => self.runs,
        };
        for run in 1..=number {
            // In turn, so that other load on the machine affects the cases alike.
            for (Case { name, load, .. }, runs) in cases.iter().zip(&mut *runs) {
                eprintln!("{scenario}: {name}, run {run} of {number}");
                let mut tries = 1;
                let measurements = loop {
                    match Box::pin(load.measure(server)).await {
                        Err(error) if tries < MAX_TRIES && error.is::<SchedulerStalled>() => {
                            eprintln!("{scenario}: {error}: measuring again");
                            repeated.push(format!("{name}, run {run}: {error}"));
                            tries += 1;
                            server.drop_databases().await?;
                        }
                        result => break result?,
                    }
                };
                runs.push(measurements);
            }
        }
        Ok(())
    }
}

/// The longest scheduler stall while the benchmark does nothing.
async fn idle_stall() -> Duration {
    let stalls = SchedulerStalls::watch();
    tokio::time::sleep(IDLE_OBSERVATION).await;
    stalls.take_longest()
}
