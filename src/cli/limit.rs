//! `worker limit`

use std::str::FromStr;

use clap::Args;

use super::args::{DatabaseArgs, operator};
use super::print::print_line;

/// Set how many calls a second an app may make, on all hosts at once
///
/// It holds until it is set again, also for workers that start later. The same in SQL:
/// `select signaling.set_limit('default', 200)`, and null for the configured limit.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker limit default 200             leave 300 of 500 calls a second to others
  worker limit default configured      what the workers are configured with again")]
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
    let outbox = args.database.connect_migrated().await?;
    let news = outbox
        .set_limit(&args.app, args.limit.0, &operator())
        .await?;
    let limit = args
        .limit
        .0
        .map_or("the configured one".to_owned(), |limit| {
            format!("{limit} calls/s")
        });
    print_line(format!(
        "the limit of {} {} {limit}",
        args.app,
        if news { "is now" } else { "was already" }
    ))?;
    outbox.close().await;
    Ok(())
}
