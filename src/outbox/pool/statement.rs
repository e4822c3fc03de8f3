//! Metrics by kind of statement.

use std::time::Instant;

use metrics::{counter, histogram};

/// Histogram of durations in seconds, including the wait for a connection. Label: `statement`.
pub(crate) const STATEMENT_DURATION: &str = "signaling_database_statement_duration_seconds";
/// Counter of failed statements. Label: `statement`.
pub(crate) const STATEMENT_ERRORS: &str = "signaling_database_errors_total";

macro_rules! statements {
    ($($name:ident $label:literal)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Statement { $($name),* }

        impl Statement {
            fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

// `lane` opens, holds, releases and slows a lane; `read` reads for people and monitors; `admin` changes rows for an
// operator.
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

impl Statement {
    pub(in crate::outbox) fn observe<T>(self, begun: Instant, result: &Result<T, sqlx::Error>) {
        // Also without an error, so that the counter begins at zero.
        counter!(STATEMENT_ERRORS, "statement" => self.label()).increment(result.is_err().into());
        if result.is_ok() {
            let durations = histogram!(STATEMENT_DURATION, "statement" => self.label());
            durations.record(begun.elapsed());
        }
    }
}
