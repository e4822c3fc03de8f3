//! `worker pause` and `worker resume`

use clap::Args;

use super::args::{DatabaseArgs, operator, parse_reason};
use super::obstacles;
use super::print::{one_line, report};
use super::status;
use crate::outbox::{LaneStatus, ObstacleKind};

/// Keep an app from sending, on all hosts at once
///
/// Its messages wait, and calls in flight are finished. The same in SQL: select signaling.pause('default', 'why').
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker pause default --reason 'the vendor is down for maintenance'"
)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,

    /// Why, for the others
    #[arg(long, value_parser = parse_reason)]
    reason: Option<String>,
}

/// Let an app send again that is paused, or that the API has asked to wait
///
/// A hold stays until a probe gets a response that shows that the API works; the command says so. The same in SQL: select signaling.resume('default').
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
            "{app} is paused: no call starts until `worker resume {app}`, and calls in flight are finished\n"
        )
    } else {
        format!("{app} was paused already{}\n", paused_by(lane.as_ref()))
    };
    if let Some(lane) = lane {
        text += &obstacles::lines(&lane, Some(ObstacleKind::Paused));
    }
    report(text, is_news)
}

/// The operator who paused an app, with the time and the reason, for the end of a sentence.
fn paused_by(lane: Option<&LaneStatus>) -> String {
    match lane {
        None => ": see `worker status` for who did it and why".into(),
        Some(lane) => match (&lane.paused_by, lane.paused_at) {
            (Some(by), Some(at)) => {
                let reason = lane.pause_reason.as_deref().map(|why| format!(": {why}"));
                let text = format!(
                    "by {by} since {}{}",
                    status::at(Some(at)),
                    reason.unwrap_or_default()
                );
                format!(", {}", one_line(&text))
            }
            _ => ", and somebody has resumed it just now".into(),
        },
    }
}

pub(super) async fn resume(args: ResumeArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let change = outbox.resume(&args.app).await?;
    outbox.close().await;
    // The beginning of the sentence that `signaling.resume` returns.
    let has_changed = !change.starts_with("nothing changed");
    report(
        format!("{}: {}\n", args.app, one_line(&change)),
        has_changed,
    )
}
