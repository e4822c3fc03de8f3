//! `worker bench`: what a message costs, how soon it starts, and whether that grows with what lies around. It measures
//! real processes against a Postgres of its own and the simulated API, beside the loop that people write by hand.

mod api;
mod child;
mod counts;
mod delay;
mod drain;
mod figures;
mod idle;
mod meter;
mod producers;
mod report;
mod scenario;
mod stage;
mod stalls;
mod target;

#[path = "../benches/hand_written.rs"]
pub mod hand_written;

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use figures::Figures;
use scenario::Case;
pub use scenario::Scenario;
use stage::Machine;
pub use stalls::SchedulerStalls;
use target::Target;

/// How often a run is tried that the machine itself disturbs.
const ATTEMPTS: u32 = 4;
/// How long the machine is looked at before anything begins.
const LOOKED_AT_FOR: Duration = Duration::from_secs(2);

/// What to measure, and how thoroughly.
#[derive(Debug, Clone)]
pub struct Bench {
    /// In this order.
    pub scenarios: Vec<Scenario>,
    /// How often; medians are told.
    pub runs: u32,
    /// The part of the usual numbers of messages and seconds.
    pub scale: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// How often each case was to be measured.
    pub runs: u32,
    /// The part of the usual numbers of messages and seconds.
    pub scale: f64,
    /// Whether it was ended before everything was measured.
    pub was_interrupted: bool,
    /// The database server.
    pub postgres: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// For how long one of them stood still at the longest, in milliseconds, while nothing was done.
    pub stood_still_ms: f64,
    /// What each scenario showed.
    pub scenarios: Vec<Measured>,
}

/// One scenario.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub scenario: Scenario,
    /// Its cases, in the order in which they are compared.
    pub cases: Vec<MeasuredCase>,
    /// What is to be reached, and whether it was.
    pub targets: Vec<Target>,
    /// Runs that were made again, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repeated: Vec<String>,
    /// What went wrong, where not all runs could be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One case of a scenario.
#[derive(Debug, Serialize)]
pub struct MeasuredCase {
    /// Its name.
    pub case: &'static str,
    /// The medians of the runs.
    pub median: Figures,
    /// Each run.
    pub runs: Vec<Figures>,
}

impl Report {
    /// Whether every target was reached.
    pub fn all_targets_are_met(&self) -> bool {
        let mut targets = self.scenarios.iter().flat_map(|scenario| &scenario.targets);
        targets.all(|target| target.is_met)
    }

    /// Whether nobody else was served by this machine while nothing was done here.
    fn machine_is_quiet(&self) -> bool {
        self.stood_still_ms <= SchedulerStalls::TOLERABLE.as_secs_f64() * 1e3
    }

    /// The scenarios in which something went wrong.
    pub fn failed(&self) -> impl Iterator<Item = Scenario> {
        let failed = self.scenarios.iter().filter(|one| one.failure.is_some());
        failed.map(|measured| measured.scenario)
    }
}

impl Bench {
    /// Measures, and says on standard error what it is about. A `shutdown` ends it with what there is. A process that
    /// fails or a promise that is broken (a message sent twice or not at all, a call above the limit) ends its
    /// scenario, and is told in the report.
    ///
    /// # Errors
    /// Where the database server can't be started or stopped.
    pub async fn run(&self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let machine = Machine::start().await?;
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            runs: self.runs,
            scale: self.scale,
            was_interrupted: false,
            postgres: machine.version().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            stood_still_ms: stood_still_while_idle().await.as_secs_f64() * 1e3,
            scenarios: Vec::new(),
        };
        if !report.machine_is_quiet() {
            eprintln!(
                "this machine is not quiet: a processor stood still for {:.0} ms while nothing was done. \
                 Figures of time will be rough, those of the pace too low",
                report.stood_still_ms
            );
        }
        for &scenario in &self.scenarios {
            let cases = scenario.cases(self.scale);
            let mut runs = vec![Vec::new(); cases.len()];
            let mut repeated = Vec::new();
            let running = self.take_runs(scenario, &cases, &mut runs, &mut repeated, &machine);
            let ended = shutdown.run_until_cancelled(running).await;
            let failure = ended
                .and_then(Result::err)
                .map(|error| format!("{error:#}"));
            report.was_interrupted = shutdown.is_cancelled();
            if failure.is_some() || runs.iter().all(|runs| !runs.is_empty()) {
                report.scenarios.push(Measured {
                    repeated,
                    failure,
                    ..Measured::of(scenario, &cases, runs)
                });
            }
            if report.was_interrupted {
                break;
            }
            machine.clear().await?;
        }
        machine.stop().await?;
        Ok(report)
    }

    async fn take_runs(
        &self,
        scenario: Scenario,
        cases: &[Case],
        runs: &mut [Vec<Figures>],
        repeated: &mut Vec<String>,
        machine: &Machine,
    ) -> anyhow::Result<()> {
        for run in 1..=self.runs {
            // In turn, so that whatever else the machine does meets them alike.
            for (Case { name, load }, runs) in cases.iter().zip(&mut *runs) {
                eprintln!("{scenario}: {name}, run {run} of {}", self.runs);
                let mut attempt = 1;
                let figures = loop {
                    match load.measure(machine).await {
                        Err(error) if attempt < ATTEMPTS && error.is::<StoodStill>() => {
                            eprintln!("{scenario}: {error}: measured again");
                            repeated.push(format!("{name}, run {run}: {error}"));
                            attempt += 1;
                            machine.clear().await?;
                        }
                        result => break result?,
                    }
                };
                runs.push(figures);
            }
        }
        Ok(())
    }
}

impl Measured {
    fn of(scenario: Scenario, cases: &[Case], runs: Vec<Vec<Figures>>) -> Self {
        let cases: Vec<_> = cases
            .iter()
            .zip(runs)
            .map(|(case, runs)| MeasuredCase {
                case: case.name,
                median: Figures::medians(&runs),
                runs,
            })
            .collect();
        Self {
            targets: scenario.targets(&cases),
            scenario,
            cases,
            repeated: Vec::new(),
            failure: None,
        }
    }
}

async fn stood_still_while_idle() -> Duration {
    let stalls = SchedulerStalls::watch();
    tokio::time::sleep(LOOKED_AT_FOR).await;
    stalls.take_longest()
}

/// More calls arrived within a second than the limit allows, but not more were made: those who make, carry or take note
/// of them had to wait for a processor, so this says nothing of the pace.
#[derive(Debug, thiserror::Error)]
#[error(
    "{arrived} calls arrived within a second, and {started} were made, on a machine that stood still for {stall_ms} ms"
)]
struct StoodStill {
    arrived: u64,
    started: u64,
    stall_ms: u128,
}

/// Scales a number of things, but leaves enough to measure.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52, and positive"
)]
fn scaled(usual: u64, scale: f64) -> u64 {
    ((usual as f64 * scale) as u64).clamp(1_000.min(usual), u64::from(u32::MAX))
}

fn scaled_time(usual: Duration, scale: f64) -> Duration {
    usual.mul_f64(scale).max(Duration::from_secs(2))
}
