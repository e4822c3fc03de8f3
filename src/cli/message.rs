//! `worker message`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;

use super::args::ReadArgs;
use super::print::{block, one_line};
use crate::config::parse_number;
use crate::message_text::{fault, next_step};
use crate::outbox::{CallDetail, MessageDetail, Outbox};
use crate::pace::DbTime;
use crate::sanitize;

/// Show one message: its state, its calls, and what happens next
///
/// Needs the rights of a reader. With --payload, needs the right to read payloads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker message 17
  worker message 17 --json | jq '.calls[] | {sent_at, http_status, outcome, fault, charged, error}'
  worker message 17 --payload

The database keeps no duration of accepted calls, so such a call shows only its start and its response.")]
pub(super) struct MessageArgs {
    /// The message
    #[arg(value_name = "ID", value_parser = parse_number::<i64>)]
    id: i64,

    /// Show the payload, too
    #[arg(long)]
    payload: bool,

    #[command(flatten)]
    read: ReadArgs,
}

/// Of a time with microseconds.
const TIME_WIDTH: usize = 27;

pub(super) async fn run(args: MessageArgs) -> anyhow::Result<()> {
    let message = async |outbox: &Outbox| {
        let found = outbox.message(args.id, args.payload).await?;
        let detail = found.with_context(|| {
            let id = args.id;
            format!("there is no message {id}: it was never inserted, its transaction is not committed, or it is deleted already")
        })?;
        anyhow::ensure!(
            detail.payload.is_some() || !args.payload,
            "this role may not read payloads: leave out --payload, or log in as a role that also has the rights of a producer (`worker grant producer`)"
        );
        Ok::<_, anyhow::Error>(detail)
    };
    args.read.show(message, show).await
}

fn show(detail: &MessageDetail) -> String {
    let mut text = heading(detail);
    text.push('\n');
    for (when, what) in timeline(detail) {
        writeln!(text, "  {:TIME_WIDTH$}  {what}", when.to_string()).ok();
    }
    writeln!(text, "\nnext: {}", one_line(&next_step(detail))).ok();
    if let Some(call) = detail.last_failure()
        && let Some(advice) = call.advice()
    {
        let (attempt, fault) = (call.attempt, one_line(&fault(call)));
        writeln!(
            text,
            "why:  call {attempt} failed. {fault}\n      -> {advice}"
        )
        .ok();
    }
    text
}

fn heading(detail: &MessageDetail) -> String {
    let row = &detail.message;
    let to = match &row.destination {
        Some(user) => ("to user", user.clone()),
        None => ("to channel", row.channel_name.clone().unwrap_or_default()),
    };
    let mut attempts = format!("{} of {}", row.attempts, row.max_attempts);
    if row.uncharged > 0 {
        write!(attempts, ", and {} not charged", row.uncharged).ok();
    }
    // Control characters would change the operator's terminal.
    let payload = detail.payload.as_deref();
    let payload = payload.map(|payload| sanitize::text(payload, usize::MAX));
    let mut lines = vec![
        ("from", row.sender.clone()),
        to,
        ("payload", payload.unwrap_or("--payload shows it".into())),
        ("attempts", attempts),
    ];
    if row.at_most_once {
        let repeats = "at most once: no retry after an ambiguous call";
        lines.push(("repeats", repeats.into()));
    }
    if let Some(expires_at) = row.expires_at {
        lines.push(("expires", expires_at.to_string()));
    }
    let heading = format!("message {} of app {}: {}", row.id, row.app, row.state);
    block(&heading, &lines)
}

/// The times and texts of what has happened to a message. The page of the message shows them, too.
pub(crate) fn timeline(detail: &MessageDetail) -> Vec<(DbTime, String)> {
    let row = &detail.message;
    let mut events = vec![(row.created_at, "inserted".to_owned())];
    events.extend(detail.calls.iter().map(call));
    // The table of attempts has only failed calls.
    if let (Some(sent_at), true) = (row.sent_at, row.status.starts_with("message_")) {
        let accepted = format!(
            "call {}: accepted{}{}{}",
            row.attempts.saturating_add(row.uncharged),
            optional(", HTTP ", row.http_status),
            optional(", by ", row.claimed_by.as_ref()),
            optional(", request ID ", row.request_id.as_ref())
        );
        events.push((sent_at, accepted));
    }
    if let Some(finished_at) = row.finished_at {
        let error = optional(": ", row.error.as_ref());
        events.push((finished_at, format!("{}{error}", row.status)));
    }
    events
}

fn call(call: &CallDetail) -> (DbTime, String) {
    let outcome = match call.outcome.as_str() {
        "lost" => "lost, and perhaps never made",
        outcome => outcome,
    };
    let took_ms = call.duration_ms.map(|ms| format!("{ms:.0} ms"));
    let what = format!(
        "call {}: {outcome}{}{}{}{}\n{:indent$}{}",
        call.attempt,
        optional(", HTTP ", call.http_status),
        optional(" after ", took_ms),
        optional(", by ", call.claimed_by.as_ref()),
        optional(": ", call.error.as_ref()),
        "",
        one_line(&fault(call)),
        indent = 4 + TIME_WIDTH,
    );
    (call.sent_at.unwrap_or(call.recorded_at), what)
}

fn optional(before: &str, value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| {
        format!("{before}{}", one_line(&value.to_string()))
    })
}
