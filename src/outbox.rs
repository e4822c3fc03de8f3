//! Everything that is said to the database, and nothing else: the claim, the record, the doorbell, the lane's row,
//! what people ask for. No other module contains SQL for the outbox.

mod bell;
mod browse;
mod claim;
mod enqueue;
mod errors;
mod facts;
mod failures;
mod grant;
mod json_lines;
mod lane;
mod lane_status;
mod line;
mod message_detail;
mod migrate;
mod record;
mod retention;
mod rights;
mod session;
mod single_call;
mod statements;
mod stats;
mod status;
mod steer;
mod tls_files;

use std::sync::{Mutex, PoisonError};

pub use bell::Bell;
pub use browse::{MessageFilter, MessageLine, MessagePage, PAGE_ROWS, PENDING, STATES};
pub use claim::{Batch, ClaimError, ClaimRequest, Claimed, Ended, Hold, Start};
pub use enqueue::{EnqueueError, enqueue};
pub use errors::{explain, is_about_the_data, is_outage};
pub use facts::{Distance, OldTransaction, ServerFacts};
pub use failures::{FailureGroup, FailureKey, Failures, MAX_CALLS_LOOKED_AT, MAX_RETRIED};
pub use grant::{GrantError, InvalidRoleName, RoleKind, RoleName};
pub use json_lines::{InvalidLines, read_json_lines};
pub use lane::{HoldKind, Peek};
pub use lane_status::{AppLane, LaneState, LaneStatus, Pending};
pub use line::Patience;
pub use message_detail::{
    CallDetail, LaneDetail, MessageDetail, MessageError, MessageRow, NextStep, PayloadDetail,
};
pub use migrate::{Applied, Holder, SchemaError, SchemaVersion};
pub use record::{CallRecord, Record};
pub use retention::{Deletion, MIN_RETAIN};
pub use session::{ConnectError, Outbox};
pub use single_call::{Refusal, SingleCall};
pub use statements::{STATEMENT_DURATION, STATEMENT_ERRORS};
pub use stats::{MinuteStats, StatsError};
pub use status::{AppStatus, Percentiles, SampleRow};
pub use steer::{RetryFilter, SteerError};
pub use tls_files::{TlsFileError, check_tls_files};

use crate::pace::DbClock;
use crate::pace::clock::{ClockReading, Moment};
use errors::may_have_happened;

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
) -> Result<(T, Moment, Moment), E> {
    let asked = Moment::now();
    let value = statement.await?;
    Ok((value, asked, Moment::now()))
}
