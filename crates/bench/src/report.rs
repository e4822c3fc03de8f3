//! The report: what each scenario measured, as JSON and as a table for people.

use std::fmt::{self, Write as _};

use serde::Serialize;
use testkit::SchedulerStalls;

use crate::measurements::{Measurements, median};
use crate::scenario::{Case, Scenario};
use crate::target::{Bound, Target};
use crate::worker::Worker;

/// The result of the benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of the benchmark, which is also that of a worker built with it.
    pub(crate) version: &'static str,
    pub(crate) workers: Vec<Worker>,
    /// Requested runs of each case.
    pub(crate) runs: u32,
    /// Requested runs of each case of a scenario that compares pairs.
    pub(crate) pairs: u32,
    /// Multiplies the usual numbers of messages and seconds.
    pub(crate) scale: f64,
    /// A signal ended the benchmark before all scenarios were measured.
    pub(crate) was_interrupted: bool,
    /// Version of the database server.
    pub(crate) postgres: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Longest scheduler stall of one of them while the benchmark did nothing.
    pub(crate) idle_stall_ms: f64,
    pub(crate) scenarios: Vec<ScenarioReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) scenario: Scenario,
    /// In the order in which they are compared.
    pub(crate) cases: Vec<CaseReport>,
    /// Targets of the worker that the command line names last.
    pub(crate) targets: Vec<Target>,
    /// For a scenario that compares two cases in pairs of runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pairs: Vec<PairsReport>,
    /// Runs that a scheduler stall disturbed, so that they were repeated, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) repeated: Vec<String>,
    /// Why the scenario has ended before all runs were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) case: String,
    /// Name of the worker that sends. None for the hand-written loop.
    pub(crate) worker: Option<String>,
    /// Medians of the runs.
    pub(crate) median: Measurements,
    pub(crate) runs: Vec<Measurements>,
}

/// The second case of a worker as a percentage of its first case.
#[derive(Debug, Serialize)]
pub(crate) struct PairsReport {
    pub(crate) worker: String,
    /// One for each pair of runs.
    pub(crate) percents: Vec<f64>,
    pub(crate) median_percent: f64,
}

impl Report {
    pub(crate) fn all_targets_are_met(&self) -> bool {
        let mut targets = self.scenarios.iter().flat_map(|scenario| &scenario.targets);
        targets.all(|target| target.is_met)
    }

    /// No processor stood still for long while the benchmark did nothing.
    pub(crate) fn machine_is_quiet(&self) -> bool {
        self.idle_stall_ms <= SchedulerStalls::TOLERABLE.as_secs_f64() * 1e3
    }

    pub(crate) fn failed_scenarios(&self) -> impl Iterator<Item = Scenario> {
        let failed = self.scenarios.iter().filter(|it| it.failure.is_some());
        failed.map(|it| it.scenario)
    }
}

impl ScenarioReport {
    pub(crate) fn of(
        scenario: Scenario,
        workers: &[Worker],
        cases: &[Case],
        runs: Vec<Vec<Measurements>>,
    ) -> Self {
        let cases: Vec<_> = cases
            .iter()
            .zip(runs)
            .map(|(case, runs)| CaseReport {
                case: case.name.clone(),
                worker: case.worker.clone(),
                median: Measurements::medians(&runs),
                runs,
            })
            .collect();
        let of_worker = |worker: &Worker| -> Vec<_> {
            let is_its =
                |case: &&CaseReport| case.worker.as_ref().is_none_or(|it| *it == worker.name);
            cases.iter().filter(is_its).collect()
        };
        let pairs = workers.iter().map(|worker| {
            let percents = scenario.pair_percents(&of_worker(worker));
            PairsReport {
                worker: worker.name.clone(),
                median_percent: median(percents.clone()),
                percents,
            }
        });
        Self {
            pairs: pairs.filter(|pairs| !pairs.percents.is_empty()).collect(),
            targets: workers
                .last()
                .map(|worker| scenario.targets(&of_worker(worker)))
                .unwrap_or_default(),
            scenario,
            cases,
            repeated: Vec::new(),
            failure: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            postgres,
            cores,
            scale,
            ..
        } = self;
        let idle_stall = number(self.idle_stall_ms);
        writeln!(
            formatter,
            "signaling-worker {version}, {postgres}, {cores} cores, longest scheduler stall while idle {idle_stall} ms"
        )?;
        if self.workers.len() > 1 {
            for Worker { name, binary } in &self.workers {
                writeln!(formatter, "{name}: {}", binary.display())?;
            }
        }
        for measured in &self.scenarios {
            write!(formatter, "\n{}", table(measured)?)?;
        }
        if *scale < 1.0 {
            let scale = number(*scale);
            writeln!(
                formatter,
                "\nScale {scale}: the cases had fewer messages and seconds than their names say."
            )?;
        }
        if self.was_interrupted {
            writeln!(formatter, "\nInterrupted: not everything was measured.")?;
        }
        Ok(())
    }
}

/// A column for each case, a row for each measurement, and the targets below them.
fn table(measured: &ScenarioReport) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let names: Vec<_> = measured
        .cases
        .first()
        .iter()
        .flat_map(|case| case.median.iter().map(|(name, _)| name))
        .collect();
    let longest = names.iter().map(|name| name.len()).max();
    let name_width = longest.unwrap_or(0).max(24);
    let width = |case: &CaseReport| case.case.chars().count().max(20);
    let scenario = measured.scenario.to_string();
    write!(text, "{scenario:<0$}", name_width + 2)?;
    for case in &measured.cases {
        write!(text, "  {:>1$}", case.case, width(case))?;
    }
    writeln!(text)?;
    for name in names {
        write!(text, "  {name:<name_width$}")?;
        for case in &measured.cases {
            let value = case.median.get(name).map_or_else(|| "–".into(), number);
            write!(text, "  {value:>0$}", width(case))?;
        }
        writeln!(text)?;
    }
    for pairs in &measured.pairs {
        let percents: Vec<_> = pairs.percents.iter().copied().map(number).collect();
        writeln!(
            text,
            "  pairs of {}, %: {}; median {}",
            pairs.worker,
            percents.join(", "),
            number(pairs.median_percent)
        )?;
    }
    for target in &measured.targets {
        let verdict = if target.is_met { "ok    " } else { "MISSED" };
        let bound = match target.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        let value = target.value.map_or_else(|| "not measured".into(), number);
        let bound_value = number(target.bound_value);
        writeln!(
            text,
            "  {verdict} {}: {value} ({bound} {bound_value})",
            target.what
        )?;
    }
    for repeated in &measured.repeated {
        writeln!(text, "  REPEAT {repeated}")?;
    }
    if let Some(failure) = &measured.failure {
        writeln!(text, "  FAILED {failure}")?;
    }
    Ok(text)
}

/// A number with three significant digits, or the digits before its decimal point.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_for_each_case_and_names_missed_targets() {
        let case = |case: &str, worker: Option<&str>, rate| {
            let mut median = Measurements::default();
            median.add("messages_per_s", rate);
            CaseReport {
                case: case.into(),
                worker: worker.map(Into::into),
                runs: vec![median.clone()],
                median,
            }
        };
        let cases = [
            case("worker", Some("worker"), 12_000.0),
            case("hand-written loop", None, 4_000.0),
        ];
        let measured = ScenarioReport {
            scenario: Scenario::Drain,
            targets: Scenario::Drain.targets(&cases.iter().collect::<Vec<_>>()),
            pairs: vec![PairsReport {
                worker: "worker".into(),
                percents: vec![91.0, 95.0],
                median_percent: 93.0,
            }],
            cases: cases.into(),
            repeated: vec!["disturbed".into()],
            failure: Some("501 calls".into()),
        };
        let text = table(&measured).expect("a table");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("drain") && lines[0].ends_with("hand-written loop"));
        assert!(lines[1].contains("12000") && lines[1].ends_with("4000"));
        assert_eq!(lines[2], "  pairs of worker, %: 91.0, 95.0; median 93.0");
        assert_eq!(
            lines[3],
            "  MISSED messages/s, times the loop's: 3.00 (at least 4.00)"
        );
        assert_eq!(
            lines[4],
            "  MISSED processor time a message, of the loop's: not measured (at most 0.250)"
        );
        assert_eq!(lines[5..], ["  REPEAT disturbed", "  FAILED 501 calls"]);
    }
}
