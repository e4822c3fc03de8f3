//! How long statements take and how often they fail, for the metrics.

use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

/// The histogram of how long a statement takes, in seconds, with the wait for a connection. Label: `statement`.
pub const STATEMENT_DURATION: &str = "signaling_database_statement_duration_seconds";
/// The counter of statements that failed. Label: `statement`.
pub const STATEMENT_ERRORS: &str = "signaling_database_errors_total";

/// What is said to the database while a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    /// Takes due rows.
    Claim,
    /// Writes what became of them.
    Record,
    /// Looks when something is due.
    Peek,
    /// Ends rows whose time is over.
    Expire,
    /// Gives back claims and probes that came to nothing.
    GiveBack,
    /// Writes the lane's row: opens, holds, releases, slows.
    Lane,
    /// Adds up the stats of a minute.
    Stats,
    /// Counts what waits.
    QueueCounts,
    /// Deletes old messages.
    Delete,
    /// Asks for the version of the schema.
    Schema,
    /// Reads for people and monitors.
    Look,
    /// Changes what a person wants changed.
    Steer,
}

impl Statement {
    const ALL: [Self; 12] = [
        Self::Claim,
        Self::Record,
        Self::Peek,
        Self::Expire,
        Self::GiveBack,
        Self::Lane,
        Self::Stats,
        Self::QueueCounts,
        Self::Delete,
        Self::Schema,
        Self::Look,
        Self::Steer,
    ];

    /// The value of the label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Record => "record",
            Self::Peek => "peek",
            Self::Expire => "expire",
            Self::GiveBack => "give_back",
            Self::Lane => "lane",
            Self::Stats => "stats",
            Self::QueueCounts => "queue_counts",
            Self::Delete => "delete",
            Self::Schema => "schema",
            Self::Look => "look",
            Self::Steer => "steer",
        }
    }
}

/// Where statements are counted: nowhere, if no recorder of metrics is installed when this is made.
#[derive(Debug)]
pub(super) struct StatementMetrics([(Histogram, Counter); Statement::ALL.len()]);

impl StatementMetrics {
    pub(super) fn new() -> Self {
        Self(Statement::ALL.map(|statement| {
            let name = statement.as_str();
            (
                histogram!(STATEMENT_DURATION, "statement" => name),
                counter!(STATEMENT_ERRORS, "statement" => name),
            )
        }))
    }

    /// Takes in how a statement went that was begun then.
    pub(super) fn learn<T>(
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
