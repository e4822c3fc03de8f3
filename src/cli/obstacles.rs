//! What else keeps an app from sending, after a command has changed something: an operator who raises the limit of a paused
//! app must not wait for calls.

use std::fmt::Write;

use sqlx::error::DatabaseError;

use crate::outbox::{LaneStatus, ObstacleKind, Outbox};
use crate::sanitize;

/// The longest sentence that is printed, in characters. Reasons in it come from other people and from the API.
const MAX_SHOWN_CHARS: usize = 1_000;

/// A text of others in a line.
pub(super) fn shown(text: &str) -> String {
    sanitize::text(text, MAX_SHOWN_CHARS)
}

/// The answer of a query that explains what a command has done. None if the role may not read that: the command itself has
/// taken effect, and must not end as failed.
pub(super) fn if_readable<T>(answer: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            let code = error.as_database_error().and_then(DatabaseError::code);
            // insufficient_privilege
            if code.as_deref() == Some("42501") {
                Ok(None)
            } else {
                Err(error)
            }
        }
    }
}

/// The lane of an app, as far as it may be read.
pub(super) async fn lane(outbox: &Outbox, app: &str) -> Result<Option<LaneStatus>, sqlx::Error> {
    Ok(if_readable(outbox.lane(app).await)?.flatten())
}

/// A line for each obstacle but one, which the command has named already.
pub(super) fn lines(lane: &LaneStatus, but: Option<ObstacleKind>) -> String {
    let mut text = String::new();
    for obstacle in &lane.obstacles {
        if Some(obstacle.kind) != but {
            writeln!(text, "  but {}", shown(&obstacle.sentence)).ok();
        }
    }
    text
}
