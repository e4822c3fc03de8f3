//! How long statements take and how often they fail, for the metrics.

use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

/// The histogram of how long a statement takes, in seconds, with the wait for a connection. Label: `statement`.
pub(crate) const STATEMENT_DURATION: &str = "signaling_database_statement_duration_seconds";
/// The counter of statements that failed. Label: `statement`.
pub(crate) const STATEMENT_ERRORS: &str = "signaling_database_errors_total";

macro_rules! statements {
    ($($name:ident $label:literal)*) => {
        /// The kinds of statements, as the metrics label them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Statement { $($name),* }

        /// The values of the label.
        const LABELS: &[&str] = &[$($label),*];
    };
}

// `lane` opens, holds, releases and slows a lane; `read` reads for people and monitors, and `admin` changes what an
// operator wants changed.
statements! {
    Claim "claim"
    Record "record"
    NextDue "next_due"
    Expire "expire"
    Release "release"
    Lane "lane"
    Stats "stats"
    QueueCounts "queue_counts"
    Delete "delete"
    Read "read"
    Admin "admin"
}

/// Where statements are counted: nowhere, if no recorder of metrics is installed when this is made.
#[derive(Debug)]
pub(crate) struct StatementMetrics(Vec<(Histogram, Counter)>);

impl StatementMetrics {
    pub(crate) fn new() -> Self {
        let metrics = LABELS.iter().map(|name| {
            let durations = histogram!(STATEMENT_DURATION, "statement" => *name);
            (durations, counter!(STATEMENT_ERRORS, "statement" => *name))
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
