//! `worker retry`

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use time::OffsetDateTime;

use super::args::{DatabaseArgs, parse_time};
use super::obstacles::{self, if_readable};
use super::print::{print, print_line};
use crate::outbox::{MessageState, Outbox, Retried, RetryFilter};

/// Send messages again that failed, expired, were cancelled, or whose outcome is unknown
///
/// They start with all their attempts, and without an expiry that is over. They go out at the lane's pace; while
/// messages wait that were never called, they have a fifth of it. Sending a message again
/// whose outcome is unknown may send it a second time. The same in SQL: select signaling.retry('default').
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker retry --app default --dry-run                     how many have failed
  worker retry --app default --since 2030-01-31T12:00:00Z  what failed since then
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

    /// Only messages that were finished at this time or later
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    since: Option<OffsetDateTime>,

    /// Only messages that were finished before this time
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    until: Option<OffsetDateTime>,

    /// Only messages with an error like this; % stands for anything
    #[arg(long = "error", value_name = "PATTERN")]
    error_like: Option<String>,

    /// Only messages whose last call was answered so; may be given again
    #[arg(long = "http-status", value_name = "STATUS")]
    http_statuses: Vec<i32>,

    /// Only this message; may be given again
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<i64>,

    /// Count them, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Rows of one transaction: few enough to hold up nobody who waits for one of them.
const ROWS_PER_CALL: i64 = 5_000;

pub(super) async fn run(args: RetryArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let filter = RetryFilter {
        app: args.app,
        statuses: args.statuses,
        since: args.since,
        until: args.until,
        error_like: args.error_like,
        http_statuses: args.http_statuses,
        ids: args.ids,
    };
    if args.dry_run {
        let messages = total(&outbox.retry(&filter, true, None).await?);
        print_line(format!("{} would be sent again", count(messages)))?;
        outbox.close().await;
        return Ok(());
    }
    let left_out = left_out(&outbox, &filter).await?;
    // Without this bound, the loop would retry messages that fail again meanwhile.
    let now = OffsetDateTime::from(outbox.viewed_at().await?);
    let filter = RetryFilter {
        until: Some(filter.until.map_or(now, |until| until.min(now))),
        ..filter
    };
    let mut by_app = BTreeMap::new();
    loop {
        let retried = outbox.retry(&filter, false, Some(ROWS_PER_CALL)).await?;
        let messages = total(&retried);
        for Retried { app, messages } in retried {
            *by_app.entry(app).or_insert(0) += messages;
        }
        if messages < ROWS_PER_CALL {
            break;
        }
    }
    print(result_text(&outbox, &by_app, &left_out).await?)?;
    outbox.close().await;
    Ok(())
}

/// The number of messages of each app that are due again, and the obstacles of the app.
async fn result_text(
    outbox: &Outbox,
    by_app: &BTreeMap<String, i64>,
    left_out: &[MessageState],
) -> Result<String, sqlx::Error> {
    let mut text = String::new();
    for message in left_out {
        let MessageState { id, state, .. } = message;
        writeln!(text, "{id} is not sent again: it is {state}").ok();
    }
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

/// The messages that the operator named by id and whose status the filter excludes.
async fn left_out(outbox: &Outbox, filter: &RetryFilter) -> Result<Vec<MessageState>, sqlx::Error> {
    if filter.ids.is_empty() {
        return Ok(Vec::new());
    }
    let states = if_readable(outbox.message_states(&filter.ids).await)?;
    let mut states = states.unwrap_or_default();
    states.retain(|message| !filter.statuses.contains(&message.status));
    Ok(states)
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
