//! The report as a table for people.

use std::fmt::{self, Write as _};

use super::target::Bound;
use super::{Measured, Report};

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            postgres,
            cores,
            scale,
            ..
        } = self;
        let stood_still = number(self.stood_still_ms);
        writeln!(
            formatter,
            "signaling-worker {version}, {postgres}, {cores} cores, each served within {stood_still} ms while nothing was done"
        )?;
        for measured in &self.scenarios {
            write!(formatter, "\n{}", table(measured)?)?;
        }
        if *scale < 1.0 {
            let part = number(*scale);
            writeln!(
                formatter,
                "\nMeasured with {part} of the numbers of messages and seconds that the cases are named after."
            )?;
        }
        if self.was_interrupted {
            writeln!(formatter, "\nInterrupted: not everything was measured.")?;
        }
        Ok(())
    }
}

/// A column a case, a row a figure, and what is to be reached below them.
fn table(measured: &Measured) -> Result<String, fmt::Error> {
    let mut text = String::new();
    write!(text, "{:<26}", measured.scenario.to_string())?;
    for case in &measured.cases {
        write!(text, "  {:>20}", case.case)?;
    }
    writeln!(text)?;
    let first = measured.cases.first();
    for (name, _) in first.iter().flat_map(|case| case.median.iter()) {
        write!(text, "  {name:<24}")?;
        for case in &measured.cases {
            let value = case.median.get(name).map_or_else(|| "–".into(), number);
            write!(text, "  {value:>20}")?;
        }
        writeln!(text)?;
    }
    for target in &measured.targets {
        let verdict = if target.is_met { "ok    " } else { "MISSED" };
        let bound = match target.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        let value = target.value.map_or_else(|| "not measured".into(), number);
        let to_reach = number(target.to_reach);
        writeln!(
            text,
            "  {verdict} {}: {value} ({bound} {to_reach})",
            target.what
        )?;
    }
    for repeated in &measured.repeated {
        writeln!(text, "  AGAIN  {repeated}")?;
    }
    if let Some(failure) = &measured.failure {
        writeln!(text, "  FAILED {failure}")?;
    }
    Ok(text)
}

/// A number with as many digits as say something.
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
    use super::super::{Figures, MeasuredCase, Scenario};
    use super::*;

    #[test]
    fn a_table_has_a_column_for_each_case_and_says_what_was_missed() {
        let case = |case, rate| {
            let mut median = Figures::default();
            median.add("messages_per_s", rate);
            MeasuredCase {
                case,
                runs: vec![median.clone()],
                median,
            }
        };
        let cases = vec![case("worker", 12_000.0), case("hand-written loop", 4_000.0)];
        let measured = Measured {
            scenario: Scenario::Drain,
            targets: Scenario::Drain.targets(&cases),
            cases,
            repeated: vec!["disturbed".into()],
            failure: Some("501 calls".into()),
        };
        let text = table(&measured).expect("a table");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("drain") && lines[0].ends_with("hand-written loop"));
        assert!(lines[1].contains("12000") && lines[1].ends_with("4000"));
        assert_eq!(
            lines[2],
            "  MISSED messages/s, times the loop's: 3.00 (at least 4.00)"
        );
        assert_eq!(
            lines[3],
            "  MISSED processor time a message, of the loop's: not measured (at most 0.250)"
        );
        assert_eq!(lines[4..], ["  AGAIN  disturbed", "  FAILED 501 calls"]);
    }
}
