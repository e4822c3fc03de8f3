//! `worker limit`

use std::fmt::Write;
use std::str::FromStr;

use clap::Args;

use super::args::{DatabaseArgs, operator};
use super::obstacles;
use super::print::{one_line, report};

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
    database: DatabaseArgs,

    /// The app, as in the column `app`
    app: String,

    /// Calls a second, or `configured`
    #[arg(value_name = "CALLS")]
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit(Option<f64>);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "configured" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(limit) if (1.0..=1_000_000.0).contains(&limit) => Ok(Self(Some(limit))),
            _ => Err("write a number of calls from 1 to 1,000,000, or `configured`"),
        }
    }
}

pub(super) async fn run(args: LimitArgs) -> anyhow::Result<()> {
    let (app, wanted) = (&args.app, args.limit.0);
    let outbox = args.database.connect_migrated().await?;
    let is_news = outbox.set_limit(app, wanted, &operator()).await?;
    let lane = obstacles::lane(&outbox, app).await?;
    outbox.close().await;
    let when = if is_news { "now" } else { "already" };
    let limit = wanted.or(lane.as_ref().map(|lane| lane.limit_per_s));
    let limit = limit.map_or("the configured calls/s".into(), |limit| {
        format!("{limit} calls/s")
    });
    let by = match (wanted, &lane) {
        (None, _) => ", as its workers are configured".into(),
        (Some(_), Some(lane)) if !is_news => {
            let by = lane.limit_set_by.as_deref().map(one_line);
            by.map_or_else(String::new, |by| format!(", as {by} has set"))
        }
        (Some(_), _) => String::new(),
    };
    let mut text = format!("{app} makes at most {limit} {when}{by}\n");
    if let Some(lane) = lane {
        if lane.is_slowed() {
            writeln!(
                text,
                "  but a 429 has slowed it to {:.0} calls/s; the workers raise the rate again",
                lane.rate_per_s
            )
            .ok();
        }
        text += &obstacles::lines(&lane, None);
    }
    report(text, is_news)
}
