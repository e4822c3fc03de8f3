//! Reports of commands that change an app: the change, and the remaining obstacles of the app. Without the obstacles, an
//! operator who raises the limit of a paused app would wait for calls that never start.

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use sqlx::error::DatabaseError;

use super::args::DatabaseArgs;
use super::print::one_line;
use crate::outbox::{AdminError, LaneState, LaneStatus, Outbox};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Arguments of a command that changes one app.
#[derive(Debug, Args)]
pub(super) struct AppTarget {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    pub(super) app: String,
}

impl AppTarget {
    /// Makes the change. Returns its result and the lane after it; no lane if the role has no privilege to read it.
    pub(super) async fn change<T>(
        &self,
        change: impl AsyncFnOnce(&Outbox, &str) -> Result<T, AdminError>,
    ) -> anyhow::Result<(T, Option<LaneStatus>)> {
        let outbox = self.database.connect_migrated().await?;
        let changed = change(&outbox, &self.app).await?;
        let lane = lane(&outbox, &self.app).await?;
        outbox.close().await;
        Ok((changed, lane.flatten()))
    }
}

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

/// The lane of an app after a change, if there is one. None if the role has no privilege to read it.
pub(super) async fn lane(outbox: &Outbox, app: &str) -> anyhow::Result<Option<Option<LaneStatus>>> {
    if_readable(outbox.lane(app).await)
        .context("the change took effect, but the database failed before the report of it")
}

/// A line for each obstacle, except one that the command has printed already.
pub(super) fn lines(lane: Option<&LaneStatus>, except: Option<LaneState>) -> String {
    let mut text = String::new();
    for obstacle in lane.iter().flat_map(|lane| &lane.obstacles) {
        if Some(obstacle.kind) != except {
            writeln!(text, "  but {}", one_line(&obstacle.sentence)).ok();
        }
    }
    text
}
