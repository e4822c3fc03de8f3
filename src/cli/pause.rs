//! `worker pause`, `worker resume` and `worker limit`

use clap::Args;

use super::args::{operator, parse_reason};
use super::obstacles::{self, AppTarget};
use super::print::{one_line, report};
use crate::outbox::LaneState;

/// Stop all calls of an app, on all workers
///
/// The app's messages wait, and the workers finish calls in flight. The same in SQL: select signaling.pause('default', 'why').
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker pause default --reason 'the vendor is down for maintenance'"
)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    target: AppTarget,

    /// The reason, for other operators
    #[arg(long, value_parser = parse_reason)]
    reason: Option<String>,
}

pub(super) async fn pause(args: PauseArgs) -> anyhow::Result<()> {
    let app = &args.target.app;
    let pause = args
        .target
        .change(async |outbox, app| outbox.pause(app, args.reason.as_deref(), &operator()).await);
    let (is_changed, lane) = pause.await?;
    let text = if is_changed {
        let others = obstacles::lines(&lane, Some(LaneState::Paused));
        format!(
            "{app} is paused: no call starts until `worker resume {app}`, and the workers finish calls in flight\n{others}"
        )
    } else {
        let pause = obstacles::lines(&lane, None);
        format!("{app} was paused already\n{pause}")
    };
    report(text)
}

pub(super) async fn resume(target: AppTarget) -> anyhow::Result<()> {
    let outbox = target.database.connect_migrated().await?;
    // The sentence names the remaining obstacles, too.
    let sentence = outbox.resume(&target.app).await?;
    outbox.close().await;
    report(format!("{}: {}\n", target.app, one_line(&sentence)))
}

/// Set the limit of calls a second of an app, for all workers
///
/// The limit holds until the next change, also for workers that start later. The same in SQL:
/// `select signaling.set_limit('default', 200)`, or null for the configured limit.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker limit default 200             leave 300 of 500 calls a second to other programs
  worker limit default configured      return to the WORKER_RATE of the workers")]
pub(super) struct LimitArgs {
    #[command(flatten)]
    target: AppTarget,

    /// Calls a second, or `configured`
    #[arg(value_name = "CALLS", value_parser = parse_limit)]
    limit: Limit,
}

/// None is the configured limit.
type Limit = Option<f64>;

fn parse_limit(text: &str) -> Result<Limit, &'static str> {
    if text == "configured" {
        return Ok(None);
    }
    match text.parse() {
        Ok(limit) if (1.0..=1_000_000.0).contains(&limit) => Ok(Some(limit)),
        _ => Err("write a number of calls from 1 to 1,000,000, or `configured`"),
    }
}

pub(super) async fn limit(args: LimitArgs) -> anyhow::Result<()> {
    let set_limit = args
        .target
        .change(async |outbox, app| outbox.set_limit(app, args.limit, &operator()).await);
    let (is_changed, lane) = set_limit.await?;
    let limit = match (args.limit, &lane) {
        (Some(limit), _) => format!("{limit} calls/s"),
        (None, Ok(Some(lane))) => format!("the configured {} calls/s", lane.limit_per_s),
        (None, _) => "its configured number of calls/s".into(),
    };
    let when = if is_changed { "now" } else { "already" };
    let mut text = format!("{} makes at most {limit} {when}\n", args.target.app);
    if let Ok(Some(lane)) = &lane
        && lane.is_throttled()
    {
        let rate = lane.rate_per_s;
        let throttled = format!(
            "  but a 429 has throttled it to {rate:.0} calls/s; the workers raise the rate again\n"
        );
        text += &throttled;
    }
    text += &obstacles::lines(&lane, None);
    report(text)
}
