//! `worker retry`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;

use super::UsageError;
use super::args::{DatabaseArgs, parse_http_status, parse_id, parse_time};
use super::obstacles::{self, if_readable};
use super::print::{after_change, print, report};
use super::status;
use crate::outbox::{MessageState, Outbox, Retried, RetryFilter};
use crate::pace::DbTime;

/// Send failed, expired, cancelled or unknown messages again
///
/// The messages get all their attempts again, and lose an expiry that is over. Workers send them within the app's limit, of
/// which they get a fifth while first attempts wait. An unknown message may arrive a second time. The same in SQL: select
/// signaling.retry('default').
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker retry --app default --dry-run                     count the failed messages
  worker retry --app default --since 2030-01-31T12:00:00Z  retry the messages that failed since then
  worker retry --http-status 400 --error '%illegal%'       by the HTTP status and the error of the last call
  worker retry --status unknown --id 17 --id 18            two messages, by hand")]
pub(super) struct RetryArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Only messages of this app
    #[arg(long)]
    app: Option<String>,

    /// Only messages with this status: failed, expired, cancelled or unknown; may be given again
    #[arg(long = "status", default_value = "failed", value_parser = ["failed", "expired", "cancelled", "unknown"])]
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
    #[arg(long = "http-status", value_name = "STATUS", value_parser = parse_http_status)]
    http_statuses: Vec<i32>,

    /// Only this message; may be given again
    #[arg(long = "id", value_name = "ID", value_parser = parse_id)]
    ids: Vec<i64>,

    /// Count the messages, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Rows of one transaction. Other sessions wait for locks of these rows, so a transaction must be short.
const ROWS_PER_CALL: i64 = 5_000;

pub(super) async fn run(args: RetryArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let now = OffsetDateTime::from(outbox.viewed_at().await?);
    refuse_impossible_times(args.since, args.until, now)?;
    let filter = RetryFilter {
        app: args.app,
        statuses: args.statuses,
        since: args.since,
        until: args.until,
        error_like: args.error_like,
        http_statuses: args.http_statuses,
        ids: args.ids,
    };
    let (left_out, all_exist) = left_out(&outbox, &filter).await?;
    if args.dry_run {
        let messages = total(&outbox.retry(&filter, true, None).await?);
        print(format!(
            "{left_out}{} would be sent again\n",
            count(messages)
        ))?;
    } else {
        // Without this bound, the loop would retry messages that fail again meanwhile.
        let filter = RetryFilter {
            until: Some(filter.until.map_or(now, |until| until.min(now))),
            ..filter
        };
        let by_app = retry_in_steps(&outbox, &filter).await?;
        let text = after_change(result_text(&outbox, &by_app).await)?;
        report(left_out + &text, !by_app.is_empty())?;
    }
    outbox.close().await;
    anyhow::ensure!(all_exist, "not all messages that --id names exist");
    Ok(())
}

/// Refuses an interval in which no message can have finished. Otherwise the command would report that no message matches.
fn refuse_impossible_times(
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), UsageError> {
    let text = |time: OffsetDateTime| status::at(Some(DbTime::from(time)));
    match (since, until) {
        (Some(since), _) if since > now => Err(UsageError(format!(
            "--since {} is in the future, and no message has finished later: the database's clock shows {}. Give an earlier time",
            text(since),
            text(now)
        ))),
        (Some(since), Some(until)) if since >= until => Err(UsageError(format!(
            "--since {} is not before --until {}, so no message can match: give an earlier --since or a later --until",
            text(since),
            text(until)
        ))),
        (_, _) => Ok(()),
    }
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
        let retried = if before > 0 {
            step.with_context(|| {
                format!(
                    "{} are due again, and the next step failed, so run the command again for the rest",
                    count(before)
                )
            })?
        } else {
            step?
        };
        let messages = total(&retried);
        for Retried { app, messages } in retried {
            *by_app.entry(app).or_insert(0) += messages;
        }
        if messages < ROWS_PER_CALL {
            return Ok(by_app);
        }
    }
}

/// The number of messages of each app that are due again, and the obstacles of the app.
async fn result_text(
    outbox: &Outbox,
    by_app: &BTreeMap<String, i64>,
) -> Result<String, sqlx::Error> {
    let mut text = String::new();
    if by_app.is_empty() {
        text += "no message is due again: none matches\n";
    }
    for (app, messages) in by_app {
        let are = if *messages == 1 { "is" } else { "are" };
        writeln!(text, "{} of {app} {are} due again", count(*messages)).ok();
        match if_readable(outbox.lane(app).await)? {
            Some(Some(lane)) => text += &obstacles::lines(&lane, None),
            Some(None) => text += "  but no worker has served the app yet: start a worker\n",
            None => {}
        }
    }
    Ok(text)
}

/// Lists the messages that the operator named by id and that the command does not send again. Returns the list and whether
/// all named messages exist.
async fn left_out(outbox: &Outbox, filter: &RetryFilter) -> Result<(String, bool), sqlx::Error> {
    let mut text = String::new();
    // A role that has no right to read messages learns nothing about them.
    let Some(states) = if_readable(outbox.message_states(&filter.ids).await)? else {
        return Ok((text, true));
    };
    let found: BTreeSet<i64> = states.iter().map(|message| message.id).collect();
    for MessageState { id, state, .. } in states
        .iter()
        .filter(|message| !filter.statuses.contains(&message.status))
    {
        writeln!(text, "{id} is not sent again: it is {state}").ok();
    }
    let missing = &filter.ids.iter().copied().collect() - &found;
    for id in &missing {
        writeln!(text, "{id} is not sent again: there is no such message").ok();
    }
    Ok((text, missing.is_empty()))
}

fn total(retried: &[Retried]) -> i64 {
    retried.iter().map(|retried| retried.messages).sum()
}

fn count(messages: i64) -> String {
    if messages == 1 {
        "1 message".into()
    } else {
        format!("{messages} messages")
    }
}
