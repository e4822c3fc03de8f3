//! `worker retry`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clap::Args;

use super::args::DatabaseArgs;
use super::obstacles;
use super::print::{after_steps, messages, print, report};
use super::usage;
use crate::outbox::{MAX_ROWS_PER_CALL, Outbox, RetryFilter, is_forbidden};

/// Send failed, expired, cancelled or unknown messages again
///
/// Needs a filter, or --all for every failed message of every app. The messages get all their attempts again, and lose an
/// expiry that is over. Workers send them within the app's limit, and give them a fifth of it while first attempts wait. A
/// message with an ambiguous or lost attempt may arrive a second time, even if it has failed or expired. `worker message ID`
/// lists the attempts. The same in SQL: select signaling.retry('default').
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

    #[command(flatten)]
    filter: RetryFilter,

    /// Every failed message of every app, where no other option selects messages
    #[arg(long, conflicts_with = "RetryFilter")]
    all: bool,

    /// Count the messages, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Long, because a count or a step may read the whole outbox. The operator can interrupt the command.
const READ_ALL_TIMEOUT: Duration = Duration::from_hours(24);

pub(super) async fn run(args: RetryArgs) -> anyhow::Result<()> {
    let mut filter = args.filter;
    // Without this check, a forgotten option would send the failed messages of every app again.
    if filter == RetryFilter::default() && !args.all && !args.dry_run {
        return usage(
            "no option selects messages, so the command would send every failed message of every app again: write --all for that, or select with --app, --status, --since, --until, --error, --http-status or --id; --dry-run counts the messages first",
        );
    }
    if filter.statuses.is_empty() {
        filter.statuses.push("failed".into());
    }
    let outbox = args.database.connect_migrated().await?;
    // Without this bound, the command would retry messages that fail again meanwhile.
    let now = outbox.viewed_at().await?;
    let until = filter.until.map_or(now, |until| until.min(now));
    if let Some(since) = filter.since.filter(|since| *since >= until) {
        return usage(format!(
            "no message can match: --since {since} is not before {until} (--until, or the present time of the database). Give an earlier --since or a later --until"
        ));
    }
    filter.until = Some(until);
    let (left_out, all_exist) = left_out(&outbox, &filter).await?;
    if args.dry_run {
        let counted = outbox.retry(&filter, true, None, READ_ALL_TIMEOUT);
        let count = total(&counted.await?);
        let count = messages(count);
        print(format!("{left_out}{count} would be sent again\n"))?;
    } else {
        let by_app = retry_in_steps(&outbox, &filter).await?;
        let text = result_text(&outbox, &by_app).await;
        report(left_out + &text)?;
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
        let before: i64 = by_app.values().sum();
        let step = outbox.retry(filter, false, Some(MAX_ROWS_PER_CALL), READ_ALL_TIMEOUT);
        let did = format!("made {} due again", messages(before));
        let retried = after_steps(step.await, before, &did)?;
        let count = total(&retried);
        for (app, messages) in retried {
            *by_app.entry(app).or_insert(0) += messages;
        }
        if count < MAX_ROWS_PER_CALL {
            return Ok(by_app);
        }
    }
}

/// The number of messages of each app that are due again, and the obstacles of the app.
async fn result_text(outbox: &Outbox, by_app: &BTreeMap<String, i64>) -> String {
    if by_app.is_empty() {
        return "no message is due again: none matches, or other sessions have locked the messages\n".into();
    }
    let mut text = String::new();
    for (app, count) in by_app {
        let are = if *count == 1 { "is" } else { "are" };
        writeln!(text, "{} of {app} {are} due again", messages(*count)).ok();
        text += &obstacles::lines(&outbox.lane(app).await, None);
    }
    text
}

/// Lists the messages that the operator named by id and that do not have the chosen status. Ignores the other filters.
/// Returns the list and whether all named messages exist.
async fn left_out(outbox: &Outbox, filter: &RetryFilter) -> Result<(String, bool), sqlx::Error> {
    let mut text = String::new();
    let mut all_exist = true;
    for id in filter.ids.iter().flatten() {
        let reason = match outbox.message_row(*id).await {
            // A role may have the privilege to retry messages, and none to read them.
            Err(error) if is_forbidden(&error) => continue,
            Err(error) => return Err(error),
            Ok(Some(message)) if filter.statuses.contains(&message.status) => continue,
            Ok(Some(message)) => format!("it is {}", message.state),
            Ok(None) => {
                all_exist = false;
                "there is no such message".into()
            }
        };
        writeln!(text, "{id} is not sent again: {reason}").ok();
    }
    Ok((text, all_exist))
}

fn total(retried: &[(String, i64)]) -> i64 {
    retried.iter().map(|(_, messages)| messages).sum()
}
