//! Lists the remaining obstacles of an app after a command has changed something. Without the list, an operator who raises
//! the limit of a paused app would wait for calls that never start.

use std::fmt::Write;

use sqlx::error::DatabaseError;

use super::print::{after_change, one_line};
use crate::outbox::{LaneState, LaneStatus, Outbox};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The result of a query that only explains a command. None if the role has no privilege to read, because the command itself
/// has taken effect and must not end as failed.
pub(super) fn if_readable<T>(result: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    result.map(Some).or_else(|error| {
        let code = error.as_database_error().and_then(DatabaseError::code);
        if code.as_deref() == Some(INSUFFICIENT_PRIVILEGE) {
            Ok(None)
        } else {
            Err(error)
        }
    })
}

/// The lane of an app after a change. None if there is no lane, or if the role has no privilege to read it.
pub(super) async fn lane(outbox: &Outbox, app: &str) -> anyhow::Result<Option<LaneStatus>> {
    Ok(after_change(if_readable(outbox.lane(app).await))?.flatten())
}

/// A line for each obstacle, except one that the command has printed already.
pub(super) fn lines(lane: &LaneStatus, except: Option<LaneState>) -> String {
    let mut text = String::new();
    for obstacle in &lane.obstacles {
        if Some(obstacle.kind) != except {
            writeln!(text, "  but {}", one_line(&obstacle.sentence)).ok();
        }
    }
    text
}
