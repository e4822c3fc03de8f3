//! How long statements take and how often they fail, for the metrics.

use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

/// The histogram of how long a statement takes, in seconds, with the wait for a connection. Label: `statement`.
pub(crate) const STATEMENT_DURATION: &str = "signaling_database_statement_duration_seconds";
/// The counter of statements that failed. Label: `statement`.
pub(crate) const STATEMENT_ERRORS: &str = "signaling_database_errors_total";

/// What is said to the database while a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statement {
    Claim,
    Record,
    NextDue,
    Expire,
    /// Gives back claims and probes that came to nothing.
    Release,
    /// Writes the lane's row: opens, holds, releases, slows.
    Lane,
    Stats,
    QueueCounts,
    Delete,
    /// Asks for the version of the schema.
    Schema,
    /// Reads for people and monitors.
    Read,
    /// Changes what a person wants changed.
    Admin,
}

/// The values of the label, in the order of [`Statement`].
const LABELS: &str =
    "claim record next_due expire release lane stats queue_counts delete schema read admin";

/// Where statements are counted: nowhere, if no recorder of metrics is installed when this is made.
#[derive(Debug)]
pub(crate) struct StatementMetrics(Vec<(Histogram, Counter)>);

impl StatementMetrics {
    pub(crate) fn new() -> Self {
        let metrics = LABELS.split(' ').map(|name| {
            let durations = histogram!(STATEMENT_DURATION, "statement" => name);
            (durations, counter!(STATEMENT_ERRORS, "statement" => name))
        });
        Self(metrics.collect())
    }

    /// Takes in how a statement went that was begun then.
    pub(crate) fn observe<T>(
        &self,
        statement: Statement,
        begun: Instant,
        result: &Result<T, sqlx::Error>,
    ) {
        let (durations, errors) = &self.0[statement as usize];
        match result {
            Ok(_) => durations.record(begun.elapsed()),
            Err(_) => errors.increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_has_its_own_label() {
        use Statement::{
            Admin, Claim, Delete, Expire, Lane, NextDue, QueueCounts, Read, Record, Release,
            Schema, Stats,
        };
        let all = [
            Claim,
            Record,
            NextDue,
            Expire,
            Release,
            Lane,
            Stats,
            QueueCounts,
            Delete,
            Schema,
            Read,
            Admin,
        ];
        let labels: Vec<String> = LABELS
            .split(' ')
            .map(|label| label.replace('_', ""))
            .collect();
        let names = all.map(|statement| format!("{statement:?}").to_lowercase());
        assert_eq!(labels, names);
        assert_eq!(
            all.map(|statement| statement as usize),
            std::array::from_fn(|place| place)
        );
    }
}
