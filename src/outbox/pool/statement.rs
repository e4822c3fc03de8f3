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
    /// Writes what became of them.
    Record,
    /// Looks when something is due.
    NextDue,
    /// Ends rows whose time is over.
    Expire,
    /// Gives back claims and probes that came to nothing.
    Release,
    /// Writes the lane's row: opens, holds, releases, slows.
    Lane,
    /// Adds up the stats of a minute.
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

impl Statement {
    const ALL: [Self; 12] = [
        Self::Claim,
        Self::Record,
        Self::NextDue,
        Self::Expire,
        Self::Release,
        Self::Lane,
        Self::Stats,
        Self::QueueCounts,
        Self::Delete,
        Self::Schema,
        Self::Read,
        Self::Admin,
    ];

    /// The value of the label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Record => "record",
            Self::NextDue => "next_due",
            Self::Expire => "expire",
            Self::Release => "release",
            Self::Lane => "lane",
            Self::Stats => "stats",
            Self::QueueCounts => "queue_counts",
            Self::Delete => "delete",
            Self::Schema => "schema",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// Where statements are counted: nowhere, if no recorder of metrics is installed when this is made.
#[derive(Debug)]
pub(crate) struct StatementMetrics([(Histogram, Counter); Statement::ALL.len()]);

impl StatementMetrics {
    pub(crate) fn new() -> Self {
        Self(Statement::ALL.map(|statement| {
            let name = statement.as_str();
            (
                histogram!(STATEMENT_DURATION, "statement" => name),
                counter!(STATEMENT_ERRORS, "statement" => name),
            )
        }))
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
    fn each_statement_has_its_own_place() {
        for (place, statement) in Statement::ALL.into_iter().enumerate() {
            assert_eq!(statement as usize, place, "{}", statement.as_str());
        }
    }
}
