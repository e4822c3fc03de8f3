//! Everything that is said to the database, and nothing else: the claim, the record, the doorbell, the lane's row,
//! what people ask for. No other module contains SQL for the outbox.

mod bell;
mod claim;
mod enqueue;
mod json_lines;
mod lane;
mod line;
mod migrate;
mod record;
mod session;
mod status;
mod steer;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use bell::Bell;
pub use claim::{Batch, ClaimRequest, Claimed, Hold};
pub use enqueue::{EnqueueError, NewMessage};
pub use json_lines::{InvalidLines, read_json_lines};
pub use lane::{HoldKind, Peek};
pub use migrate::SchemaError;
pub use record::{CallRecord, Record};
pub use session::{ConnectError, Outbox};
pub use status::{AppStatus, LaneStatus, SampleRow};
pub use steer::{RetryFilter, SteerError};

use crate::pace::DbClock;
use crate::pace::clock::{ClockReading, Moment};

/// SQLSTATE of an exception that was raised without another one. The schema's own functions give others.
const RAISED: &str = "P0001";

/// What the database said, in its own words and without where in its source it said so. Its detail is left out, which
/// repeats the row; and what somebody's trigger has raised says anything.
pub fn explain(error: &sqlx::Error) -> String {
    let Some(error) = error.as_database_error() else {
        return error.to_string();
    };
    if error.code().as_deref() == Some(RAISED) {
        return "somebody's trigger or function refused it (raise exception): the server's log says why".into();
    }
    let hint = error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .and_then(|error| error.hint());
    match hint {
        Some(hint) => format!("{} ({hint})", error.message()),
        None => error.message().to_owned(),
    }
}

/// Whether a statement that failed may have been carried out all the same: the server did not say that it was not.
pub fn may_have_happened(error: &sqlx::Error) -> bool {
    use sqlx::postgres::{PgDatabaseError, PgSeverity};
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_none_or(|error| error.severity() != PgSeverity::Error)
}

/// Whether an error says that the database is away, starting, stopping or full, which passes, and not that something is
/// wrong with what was asked or how it is set up. Classes 08 (connection exception), 53 (insufficient resources, such as
/// connections) and 57 (operator intervention) of PostgreSQL, appendix A.
pub fn is_outage(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
                | ErrorKind::TimedOut
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
        ),
        sqlx::Error::PoolTimedOut => true,
        _ => false,
    }
}

/// A process's view of the database's clock, kept up by the readings that claims bring along.
#[derive(Debug, Default)]
pub struct SharedClock(Mutex<Option<DbClock>>);

impl SharedClock {
    /// Takes in a reading.
    pub fn observe(&self, reading: ClockReading) {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *clock {
            Some(clock) => clock.observe(reading),
            None => *clock = Some(DbClock::new(reading)),
        }
    }

    /// The estimate as it stands; none before the first reading.
    pub fn get(&self) -> Option<DbClock> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a statement that shows the database's clock, and remembers when.
async fn timed<T, E>(
    statement: impl Future<Output = Result<T, E>>,
) -> Result<(T, Instant, Moment), E> {
    let asked = Instant::now();
    let value = statement.await?;
    Ok((value, asked, Moment::now()))
}
