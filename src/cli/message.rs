//! `worker message`

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::{block, one_line, print_as};
use crate::config::parse_number;
use crate::message_text::{at, fault, next_step};
use crate::outbox::{CallDetail, MessageDetail, MessageRow};

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

    /// Print JSON: an object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: MessageArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let detail = outbox.message(args.id, args.payload).await?;
    outbox.close().await;
    print_as(args.json, &detail, show)
}

fn show(detail: &MessageDetail) -> String {
    let mut text = heading(detail);
    text.push('\n');
    for (when, what) in timeline(detail) {
        writeln!(text, "  {when}  {what}").ok();
    }
    writeln!(text, "\nnext: {}", one_line(&next_step(detail))).ok();
    if let Some(call) = detail.last_failure()
        && let Some(advice) = call.advice()
    {
        writeln!(
            text,
            "why:  call {} failed. {}",
            call.attempt,
            one_line(&fault(call))
        )
        .ok();
        writeln!(text, "      -> {advice}").ok();
    }
    text
}

fn heading(detail: &MessageDetail) -> String {
    let row = &detail.message;
    let to = match (&row.destination, &row.channel_name) {
        (Some(user), _) => ("to user", user.clone()),
        (None, channel) => ("to channel", channel.clone().unwrap_or_default()),
    };
    let mut attempts = format!("{} of {}", row.attempts, row.max_attempts);
    if row.uncharged > 0 {
        write!(attempts, ", and {} not charged", row.uncharged).ok();
    }
    let payload = detail.payload.as_deref().map(printable);
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
        lines.push(("expires", at(expires_at)));
    }
    let heading = format!("message {} of app {}: {}", row.id, row.app, row.state);
    block(&heading, &lines)
}

/// Escapes control characters, which would change the operator's terminal.
fn printable(payload: &str) -> String {
    let mut text = String::with_capacity(payload.len());
    for c in payload.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

fn timeline(detail: &MessageDetail) -> Vec<(String, String)> {
    let row = &detail.message;
    let mut events = vec![(at(row.created_at), "inserted".to_owned())];
    // The column `due_at` of a claimed row is the end of the lease.
    let was_due = row.finished_at.is_some() || !row.is_claimed;
    let never_called = detail.calls.is_empty();
    if was_due && never_called && row.due_at != row.created_at && row.due_at <= row.at {
        events.push((at(row.due_at), "due".into()));
    }
    events.extend(detail.calls.iter().map(call));
    // The table of attempts has only failed calls.
    if let (Some(sent_at), true) = (row.sent_at, row.status.starts_with("message_")) {
        events.push((at(sent_at), last_call(row)));
    }
    if let Some(finished_at) = row.finished_at {
        let mut what = row.status.clone();
        if let Some(error) = &row.error {
            write!(what, ": {}", one_line(error)).ok();
        }
        events.push((at(finished_at), what));
    }
    events
}

fn by(worker: Option<&str>) -> String {
    worker.map_or_else(String::new, |worker| format!(", by {}", one_line(worker)))
}

fn call(call: &CallDetail) -> (String, String) {
    let mut what = if call.outcome == "lost" {
        format!("call {}: lost, and perhaps never made", call.attempt)
    } else {
        let mut what = format!("call {}: {}", call.attempt, call.outcome);
        if let Some(status) = call.http_status {
            write!(what, ", HTTP {status}").ok();
        }
        if let Some(ms) = call.duration_ms {
            write!(what, " after {ms:.0} ms").ok();
        }
        what
    };
    what += &by(call.claimed_by.as_deref());
    if let Some(error) = &call.error {
        write!(what, ": {}", one_line(error)).ok();
    }
    let indent = 4 + at(call.recorded_at).len();
    write!(what, "\n{:indent$}{}", "", one_line(&fault(call))).ok();
    (at(call.sent_at.unwrap_or(call.recorded_at)), what)
}

fn last_call(row: &MessageRow) -> String {
    let mut what = format!(
        "call {}: accepted",
        row.attempts.saturating_add(row.uncharged)
    );
    if let Some(status) = row.http_status {
        write!(what, ", HTTP {status}").ok();
    }
    what += &by(row.claimed_by.as_deref());
    if let Some(request_id) = &row.request_id {
        write!(what, ", request ID {}", one_line(request_id)).ok();
    }
    what
}
