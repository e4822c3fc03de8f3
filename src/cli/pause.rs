//! `worker pause` and `worker resume`

use clap::Args;

use super::args::{DatabaseArgs, operator, parse_reason};
use super::obstacles;
use super::print::{one_line, report};
use super::status;
use crate::advice;
use crate::outbox::{LaneState, LaneStatus};

/// Stop all calls of an app, on all workers
///
/// The app's messages wait, and the workers finish calls in flight. The same in SQL: select signaling.pause('default', 'why').
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker pause default --reason 'the vendor is down for maintenance'"
)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,

    /// The reason, for other operators
    #[arg(long, value_parser = parse_reason)]
    reason: Option<String>,
}

/// End the pause of an app, or the wait that the API has asked for
///
/// A hold ends only after a successful probe, and the command prints the hold. The same in SQL: select
/// signaling.resume('default').
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  worker resume default")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<()> {
    let app = &args.app;
    let outbox = args.database.connect_migrated().await?;
    let reason = args.reason.as_deref();
    let is_news = outbox.pause(app, reason, &operator()).await?;
    let lane = obstacles::lane(&outbox, app).await?;
    outbox.close().await;
    let mut text = if is_news {
        format!(
            "{app} is paused: no call starts until `worker resume {app}`, and the workers finish calls in flight\n"
        )
    } else {
        format!("{app} was paused already{}\n", paused_by(lane.as_ref()))
    };
    if let Some(lane) = lane {
        text += &obstacles::lines(&lane, Some(LaneState::Paused));
    }
    report(text, is_news)
}

/// The operator who paused an app, with the time and the reason, for the end of a sentence.
fn paused_by(lane: Option<&LaneStatus>) -> String {
    let Some(lane) = lane else {
        return ": `worker status` shows the operator and the reason".into();
    };
    let (Some(by), Some(at)) = (&lane.paused_by, lane.paused_at) else {
        return ", and an operator has just resumed it".into();
    };
    let reason = advice::because(lane.pause_reason.as_deref());
    one_line(&format!(", by {by} since {}{reason}", status::at(Some(at))))
}

pub(super) async fn resume(args: ResumeArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let change = outbox.resume(&args.app).await?;
    outbox.close().await;
    // `signaling.resume` returns a sentence.
    let has_changed = !change.starts_with("nothing changed");
    report(
        format!("{}: {}\n", args.app, one_line(&change)),
        has_changed,
    )
}
