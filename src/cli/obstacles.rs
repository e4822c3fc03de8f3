//! Reports of commands that change an app: the change, and the remaining obstacles of the app. Without the obstacles, an
//! operator who raises the limit of a paused app would wait for calls that never start.

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::one_line;
use crate::error_text::database_error_text;
use crate::outbox::{AdminError, LaneState, LaneStatus, Outbox};

/// The lane after a change. None if no worker has served the app. An error becomes a line of the report. Otherwise an operator
/// whose role can't read the lane would take the change for failed.
pub(super) type LaneAfter = Result<Option<LaneStatus>, sqlx::Error>;

#[derive(Debug, Args)]
pub(super) struct AppTarget {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,

    /// The app, as in the column `app`
    pub(super) app: String,
}

impl AppTarget {
    /// Makes the change. Returns its result and the lane after it.
    pub(super) async fn change<T>(
        &self,
        change: impl AsyncFnOnce(&Outbox, &str) -> Result<T, AdminError>,
    ) -> anyhow::Result<(T, LaneAfter)> {
        let outbox = self.database.connect_migrated().await?;
        let changed = change(&outbox, &self.app).await?;
        let lane = outbox.lane(&self.app).await;
        outbox.close().await;
        Ok((changed, lane))
    }
}

/// A line for each obstacle, except one that the command has printed already.
pub(super) fn lines(lane: &LaneAfter, except: Option<LaneState>) -> String {
    let lane = match lane {
        Ok(Some(lane)) => lane,
        Ok(None) => return "  but no worker has served the app yet: start a worker\n".into(),
        Err(error) => {
            let why = database_error_text(error);
            return format!(
                "  the command can't read the lane, so it does not know the app's obstacles: {why}\n"
            );
        }
    };
    let mut text = String::new();
    for obstacle in &lane.obstacles {
        if Some(obstacle.kind) != except {
            writeln!(text, "  but {}", one_line(&obstacle.sentence)).ok();
        }
    }
    text
}
