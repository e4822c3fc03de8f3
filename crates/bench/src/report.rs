//! The report: the measurements of each scenario, as JSON and as a table.

use std::fmt::{self, Write as _};

use serde::Serialize;
use testkit::SchedulerStalls;

use crate::measurements::Measurements;
use crate::scenario::{Bound, Scenario, Target};
use crate::worker::Worker;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of the benchmark and of a worker built with it.
    pub(crate) version: &'static str,
    pub(crate) workers: Vec<Worker>,
    pub(crate) runs: u32,
    pub(crate) scale: f64,
    /// A signal ended the benchmark early.
    pub(crate) was_interrupted: bool,
    pub(crate) postgres: String,
    pub(crate) cores: usize,
    /// The longest scheduler stall while the benchmark did nothing.
    pub(crate) idle_stall_ms: f64,
    pub(crate) scenarios: Vec<ScenarioReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) scenario: Scenario,
    pub(crate) cases: Vec<CaseReport>,
    /// Targets of the last worker.
    pub(crate) targets: Vec<Target>,
    /// Runs that were repeated, each with its scheduler stall.
    pub(crate) repeated: Vec<String>,
    /// Why some runs are missing.
    pub(crate) failure: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) case: String,
    /// `None` for the hand-written loop.
    pub(crate) worker: Option<String>,
    pub(crate) median: Measurements,
    pub(crate) runs: Vec<Measurements>,
}

impl Report {
    pub(crate) fn all_targets_are_met(&self) -> bool {
        let mut targets = self.scenarios.iter().flat_map(|scenario| &scenario.targets);
        targets.all(Target::is_met)
    }

    pub(crate) fn machine_is_quiet(&self) -> bool {
        self.idle_stall_ms <= SchedulerStalls::TOLERABLE.as_secs_f64() * 1e3
    }

    pub(crate) fn failed_scenarios(&self) -> Vec<String> {
        let failed = self.scenarios.iter().filter(|it| it.failure.is_some());
        failed.map(|it| it.scenario.to_string()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "signaling-worker {}, {}, {} cores, longest scheduler stall while idle {} ms",
            self.version,
            self.postgres,
            self.cores,
            number(self.idle_stall_ms)
        )?;
        if self.workers.len() > 1 {
            for Worker { name, binary } in &self.workers {
                writeln!(formatter, "{name}: {}", binary.display())?;
            }
        }
        for measured in &self.scenarios {
            write!(formatter, "\n{}", table(measured)?)?;
        }
        if self.scale < 1.0 {
            writeln!(
                formatter,
                "\nScale {}: the cases had fewer messages and seconds than their names say.",
                number(self.scale)
            )?;
        }
        if self.was_interrupted {
            writeln!(formatter, "\nInterrupted: not everything was measured.")?;
        }
        Ok(())
    }
}

/// A column for each case, a row for each measurement, and the targets below.
fn table(measured: &ScenarioReport) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let scenario = measured.scenario.to_string();
    write!(text, "{scenario:<42}")?;
    let width = |case: &CaseReport| case.case.chars().count().max(20);
    for case in &measured.cases {
        write!(text, "  {:>1$}", case.case, width(case))?;
    }
    writeln!(text)?;
    let names = measured.cases.first().into_iter();
    for name in names.flat_map(|case| case.median.keys()) {
        write!(text, "  {name:<40}")?;
        for case in &measured.cases {
            let value = case
                .median
                .get(name)
                .copied()
                .map_or_else(|| "–".into(), number);
            write!(text, "  {value:>0$}", width(case))?;
        }
        writeln!(text)?;
    }
    for target in &measured.targets {
        let verdict = if target.is_met() { "ok    " } else { "MISSED" };
        let (bound, limit) = match target.bound {
            Bound::AtLeast(limit) => ("at least", number(limit)),
            Bound::AtMost(limit) => ("at most", number(limit)),
        };
        let value = target.value.map_or_else(|| "not measured".into(), number);
        writeln!(
            text,
            "  {verdict} {}: {value} ({bound} {limit})",
            target.name
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

/// A number with at least three significant digits.
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
            let median = Measurements::from([("messages_per_s".into(), rate)]);
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
            cases: cases.into(),
            repeated: vec!["disturbed".into()],
            failure: Some("501 calls".into()),
        };
        let text = table(&measured).expect("a table");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("drain") && lines[0].ends_with("hand-written loop"));
        assert!(lines[1].contains("12000") && lines[1].ends_with("4000"));
        assert_eq!(
            lines[2..],
            [
                "  MISSED messages/s, times the loop's: 3.00 (at least 4.00)",
                "  MISSED processor time, of the loop's: not measured (at most 0.250)",
                "  REPEAT disturbed",
                "  FAILED 501 calls"
            ]
        );
    }
}
