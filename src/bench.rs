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
use target::Target;

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
    /// The database server.
    pub postgres: String,
    /// Processors that this process may use.
    pub cores: usize,
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
}

impl Bench {
    /// Measures, and says on standard error what it is about. A `shutdown` ends it with what there is.
    ///
    /// # Errors
    /// Where a process or the database fails, or a promise is broken: a message sent twice or not at all, a call above
    /// the limit.
    pub async fn run(&self, shutdown: &CancellationToken) -> anyhow::Result<Report> {
        let machine = Machine::start().await?;
        let mut report = Report {
            postgres: machine.version().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            scenarios: Vec::new(),
        };
        for &scenario in &self.scenarios {
            let measuring = self.measure(scenario, &machine);
            match shutdown.run_until_cancelled(measuring).await {
                Some(measured) => report.scenarios.push(measured?),
                None => break,
            }
        }
        machine.stop().await?;
        Ok(report)
    }

    async fn measure(&self, scenario: Scenario, machine: &Machine) -> anyhow::Result<Measured> {
        let cases = scenario.cases(self.scale);
        let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); cases.len()];
        for run in 1..=self.runs {
            // In turn, so that whatever else the machine does meets them alike.
            for (Case { name, load }, runs) in cases.iter().zip(&mut runs) {
                eprintln!("{scenario}: {name}, run {run} of {}", self.runs);
                runs.push(load.measure(machine).await?);
            }
        }
        let cases: Vec<_> = cases
            .iter()
            .zip(runs)
            .map(|(case, runs)| MeasuredCase {
                case: case.name,
                median: Figures::medians(&runs),
                runs,
            })
            .collect();
        Ok(Measured {
            targets: scenario.targets(&cases),
            scenario,
            cases,
        })
    }
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
