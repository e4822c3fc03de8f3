//! Reports of commands that change an app: the change, and the remaining obstacles of the app. Without the obstacles, an
//! operator who raises the limit of a paused app would wait for calls that never start.

use std::fmt::Write;

use anyhow::Context;
use clap::Args;

use super::args::DatabaseArgs;
use super::print::one_line;
use crate::outbox::{AdminError, LaneState, LaneStatus, Outbox};

/// Arguments of a command that changes one app.
#[derive(Debug, Args)]
pub(super) struct AppTarget {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    pub(super) app: String,
}

impl AppTarget {
    /// Makes the change. Returns its result and the lane after it.
    pub(super) async fn change<T>(
        &self,
        change: impl AsyncFnOnce(&Outbox, &str) -> Result<T, AdminError>,
    ) -> anyhow::Result<(T, LaneStatus)> {
        let outbox = self.database.connect_migrated().await?;
        let changed = change(&outbox, &self.app).await?;
        let lane = lane(&outbox, &self.app).await?;
        outbox.close().await;
        let lane = lane.context("the change took effect, but the lane was deleted meanwhile")?;
        Ok((changed, lane))
    }
}

/// The lane of an app after a change. None if no worker has served the app.
pub(super) async fn lane(outbox: &Outbox, app: &str) -> anyhow::Result<Option<LaneStatus>> {
    let lane = outbox.lane(app).await;
    lane.context("the change took effect, but the database failed before the report of it")
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
