//! Prints the findings of a check and sets its exit code.

use std::fmt::Write;

use crate::check::{Finding, Level};
use crate::cli::print::{one_line, print, print_line};

pub(super) struct Report {
    /// Prints each finding at once. Otherwise prints all findings as JSON at the end.
    prints: bool,
    /// The first error of standard output. A closed output does not stop the checks.
    printed: anyhow::Result<()>,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(prints: bool) -> Self {
        Self {
            prints,
            printed: Ok(()),
            findings: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if self.prints {
            let printed = print(line(&finding));
            if self.printed.is_ok() {
                self.printed = printed;
            }
        }
        self.findings.push(finding);
    }

    pub(super) fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    pub(super) fn end(self) -> anyhow::Result<()> {
        if !self.prints {
            print_line(serde_json::to_string_pretty(&self.findings)?)?;
        }
        self.printed?;
        let failures = self
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Fail)
            .count();
        anyhow::ensure!(
            failures == 0,
            "{failures} of {} checks failed",
            self.findings.len()
        );
        Ok(())
    }
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let app = finding
        .app
        .as_ref()
        .map_or_else(String::new, |app| format!("{app}: "));
    let mut text = format!(
        "{level:<5} {:<12} {app}{}\n",
        finding.subject,
        one_line(&finding.found)
    );
    if let Some(advice) = &finding.advice {
        writeln!(text, "{:<18} -> {}", "", one_line(advice)).ok();
    }
    text
}
