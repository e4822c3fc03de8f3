//! `worker retry`

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;

use super::UsageError;
use super::args::{DatabaseArgs, parse_time};
use super::obstacles::{self, if_readable};
use super::print::{messages, print, report};
use crate::config::parse_number;
use crate::outbox::{Outbox, Retried, RetryFilter};
use crate::pace::DbTime;
use crate::time_text;

/// Send failed, expired, cancelled or unknown messages again
///
/// Needs a filter, or --all for every failed message of every app. The messages get all their attempts again, and lose an expiry that is over. Workers send them within the app's limit, of
/// which they get a fifth while first attempts wait. An unknown message may arrive a second time. The same in SQL: select
/// signaling.retry('default').
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker retry --app default --dry-run                     count the failed messages
  worker retry --app default --since 2030-01-31T12:00:00Z  retry the messages that failed since then
  worker retry --http-status 400 --error '%illegal%'       by the HTTP status and the error of the last call
  worker retry --status unknown --id 17 --id 18            two messages, by hand
  worker retry --all                                       every failed message of every app")]
pub(super) struct RetryArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Only messages of this app
    #[arg(long)]
    app: Option<String>,

    /// Only messages with this status: failed (the default), expired, cancelled or unknown; may be given again
    #[arg(long = "status", value_parser = ["failed", "expired", "cancelled", "unknown"])]
    statuses: Vec<String>,

    /// Only messages that were finished at this time or later, like 2030-01-31T12:00:00Z; a date like 2030-01-31 is its
    /// midnight in UTC
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    since: Option<OffsetDateTime>,

    /// Only messages that were finished before this time
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    until: Option<OffsetDateTime>,

    /// Only messages with an error like this pattern, in which % stands for any text
    #[arg(long = "error", value_name = "PATTERN")]
    error_like: Option<String>,

    /// Only messages whose last response had this HTTP status; may be given again
    #[arg(long = "http-status", value_name = "STATUS", value_parser = clap::value_parser!(i32).range(100..=599))]
    http_statuses: Vec<i32>,

    /// Only this message; may be given again
    #[arg(long = "id", value_name = "ID", value_parser = parse_number::<i64>)]
    ids: Vec<i64>,

    /// Every failed message of every app, where no other option selects messages
    #[arg(long, conflicts_with_all = ["app", "statuses", "since", "until", "error_like", "http_statuses", "ids"])]
    all: bool,

    /// Count the messages, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl RetryArgs {
    /// Without this check, a forgotten option would send the failed messages of every app again.
    fn refuse_missing_filter(&self) -> Result<(), UsageError> {
        let has_filter = self.app.is_some()
            || !self.statuses.is_empty()
            || self.since.is_some()
            || self.until.is_some()
            || self.error_like.is_some()
            || !self.http_statuses.is_empty()
            || !self.ids.is_empty();
        if has_filter || self.all || self.dry_run {
            return Ok(());
        }
        Err(UsageError(
            "no option selects messages, so the command would send every failed message of every app again: write --all for that, or select with --app, --status, --since, --until, --error, --http-status or --id; --dry-run counts the messages first".into(),
        ))
    }

    fn statuses(&self) -> Vec<String> {
        if self.statuses.is_empty() {
            vec!["failed".into()]
        } else {
            self.statuses.clone()
        }
    }
}

/// Rows of one transaction. Other sessions wait for locks of these rows, so a transaction must be short.
const ROWS_PER_CALL: i64 = 5_000;

pub(super) async fn run(args: RetryArgs) -> anyhow::Result<()> {
    args.refuse_missing_filter()?;
    let outbox = args.database.connect_migrated().await?;
    let now = OffsetDateTime::from(outbox.viewed_at().await?);
    // Without this bound, the command would retry messages that fail again meanwhile.
    let until = args.until.map_or(now, |until| until.min(now));
    if let Some(since) = args.since
        && since >= until
    {
        let text = |time: OffsetDateTime| time_text::to_the_second(DbTime::from(time));
        return Err(UsageError(format!(
            "--since {} is not before {}, which is --until or the database's clock, so no message can match: give an earlier --since or a later --until",
            text(since),
            text(until)
        ))
        .into());
    }
    let filter = RetryFilter {
        statuses: args.statuses(),
        app: args.app,
        since: args.since,
        until: Some(until),
        error_like: args.error_like,
        http_statuses: args.http_statuses,
        ids: args.ids,
    };
    let (left_out, all_exist) = left_out(&outbox, &filter).await?;
    if args.dry_run {
        let count = total(&outbox.retry(&filter, true, None).await?);
        print(format!(
            "{left_out}{} would be sent again\n",
            messages(count)
        ))?;
    } else {
        let by_app = retry_in_steps(&outbox, &filter).await?;
        let text = result_text(&outbox, &by_app).await?;
        report(left_out + &text, !by_app.is_empty())?;
    }
    outbox.close().await;
    anyhow::ensure!(all_exist, "not all messages that --id names exist");
    Ok(())
}

/// Returns the number of messages of each app.
async fn retry_in_steps(
    outbox: &Outbox,
    filter: &RetryFilter,
) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut by_app = BTreeMap::new();
    loop {
        let step = outbox.retry(filter, false, Some(ROWS_PER_CALL)).await;
        let before: i64 = by_app.values().sum();
        let retried = match step {
            Err(error) if before > 0 => {
                return Err(error).context(format!(
                    "{} are due again, and the next step failed, so run the command again for the rest",
                    messages(before)
                ));
            }
            step => step?,
        };
        let count = total(&retried);
        for Retried { app, messages } in retried {
            *by_app.entry(app).or_insert(0) += messages;
        }
        if count < ROWS_PER_CALL {
            return Ok(by_app);
        }
    }
}

/// The number of messages of each app that are due again, and the obstacles of the app.
async fn result_text(outbox: &Outbox, by_app: &BTreeMap<String, i64>) -> anyhow::Result<String> {
    if by_app.is_empty() {
        return Ok("no message is due again: none matches\n".into());
    }
    let mut text = String::new();
    for (app, count) in by_app {
        let are = if *count == 1 { "is" } else { "are" };
        writeln!(text, "{} of {app} {are} due again", messages(*count)).ok();
        match obstacles::lane(outbox, app).await? {
            Some(None) => text += "  but no worker has served the app yet: start a worker\n",
            lane => text += &obstacles::lines(lane.flatten().as_ref(), None),
        }
    }
    Ok(text)
}

/// Lists the messages that the operator named by id and that the command does not send again. Returns the list and whether
/// all named messages exist.
async fn left_out(outbox: &Outbox, filter: &RetryFilter) -> Result<(String, bool), sqlx::Error> {
    let mut text = String::new();
    let mut all_exist = true;
    // A role that has no right to read messages learns nothing about them.
    let Some(states) = if_readable(outbox.message_states(&filter.ids).await)? else {
        return Ok((text, all_exist));
    };
    for id in &filter.ids {
        let reason = match states.iter().find(|message| message.id == *id) {
            Some(message) if filter.statuses.contains(&message.status) => continue,
            Some(message) => format!("it is {}", message.state),
            None => {
                all_exist = false;
                "there is no such message".into()
            }
        };
        writeln!(text, "{id} is not sent again: {reason}").ok();
    }
    Ok((text, all_exist))
}

fn total(retried: &[Retried]) -> i64 {
    retried.iter().map(|retried| retried.messages).sum()
}
