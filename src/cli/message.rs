//! `worker message`

use std::fmt::Write;

use clap::Args;
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use super::args::DatabaseArgs;
use super::print::{one_line, print, print_line};
use crate::advice::{self, fault_name};
use crate::outbox::{CallDetail, LaneDetail, MessageDetail, MessageRow, NextStep};
use crate::outcome::Fault;
use crate::pace::DbTime;

/// Show one message: where it stands, each call, and what happens next
///
/// Needs the rights of a reader. Its payload is not shown unless asked for, and asking for it needs the right to read
/// payloads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker message 17
  worker message 17 --json | jq '.calls[] | {sent_at, http_status, outcome, fault, charged, error}'
  worker message 17 --payload

Calls that went well are not logged one by one: such a call shows when it started and the answer, not how long it took.")]
pub(super) struct MessageArgs {
    /// The message
    #[arg(value_name = "ID")]
    id: i64,

    /// Show the payload, not only its size
    #[arg(long)]
    payload: bool,

    /// Print JSON: an object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: MessageArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(1).await?;
    let detail = outbox.message(args.id, args.payload).await?;
    outbox.close().await;
    if args.json {
        print_line(serde_json::to_string_pretty(&detail)?)?;
    } else {
        print(show(&detail))?;
    }
    Ok(())
}

const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A time in UTC, to the millisecond.
fn at(time: DbTime) -> String {
    OffsetDateTime::from(time)
        .format(TIME)
        .unwrap_or_else(|_| time.to_string())
}

fn show(detail: &MessageDetail) -> String {
    let mut text = heading(detail);
    text.push('\n');
    for (when, what) in timeline(detail) {
        writeln!(text, "  {when}  {what}").ok();
    }
    writeln!(text, "\nnext: {}", next(detail)).ok();
    if let Some(call) = detail.last_failure()
        && let Some(advice) = call.advice()
    {
        writeln!(text, "why:  call {} failed. {}", call.attempt, blame(call)).ok();
        writeln!(text, "      -> {advice}").ok();
    }
    text
}

fn heading(detail: &MessageDetail) -> String {
    let row = &detail.message;
    let mut text = format!("message {} of app {}: {}\n", row.id, row.app, row.state);
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<10} {value}").ok();
    line("from", row.sender.clone());
    match (&row.destination, &row.channel_name) {
        (Some(user), _) => line("to user", user.clone()),
        (None, channel) => line("to channel", channel.clone().unwrap_or_default()),
    };
    line("payload", payload(detail));
    let mut attempts = format!("{} of {}", row.attempts, row.max_attempts);
    if row.uncharged > 0 {
        write!(attempts, ", and {} not charged", row.uncharged).ok();
    }
    line("attempts", attempts);
    if row.at_most_once {
        line(
            "repeats",
            "at most once: never after a call whose outcome is not known".into(),
        );
    }
    if let Some(expires_at) = row.expires_at {
        line("expires", at(expires_at));
    }
    text
}

fn payload(detail: &MessageDetail) -> String {
    match (&detail.payload.text, detail.payload.bytes) {
        (Some(text), _) => printable(text),
        (None, Some(bytes)) => format!("{bytes} bytes; --payload shows it"),
        (None, None) => "not shown: this role may not read payloads".into(),
    }
}

/// A payload for a terminal: in one line, with escapes for what would steer it.
fn printable(payload: &str) -> String {
    payload
        .chars()
        .flat_map(|c| {
            let (escaped, plain) = if c.is_control() {
                (Some(c.escape_default()), None)
            } else {
                (None, Some(c))
            };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// What happened, in its order.
fn timeline(detail: &MessageDetail) -> Vec<(String, String)> {
    let row = &detail.message;
    let mut events = vec![(at(row.created_at), "inserted".to_owned())];
    // While it is claimed the column has the lease's end, and when it was due before is not known.
    let was_due = row.finished_at.is_some() || !row.is_claimed;
    let never_called = detail.calls.is_empty() && detail.earlier_calls == 0;
    if was_due && never_called && row.due_at != row.created_at && row.due_at <= row.at {
        events.push((at(row.due_at), "due".into()));
    }
    if detail.earlier_calls > 0 {
        events.push((
            " ".repeat(at(row.at).len()),
            format!("{} earlier calls are not shown", detail.earlier_calls),
        ));
    }
    events.extend(detail.calls.iter().map(call));
    // The log has only calls that went wrong.
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
        format!("call {}, if it was one: lost", call.attempt)
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
    write!(what, "\n{:indent$}{}", "", blame(call)).ok();
    (at(call.sent_at.unwrap_or(call.recorded_at)), what)
}

/// Whose fault a failed call was, on what evidence, and whether it is charged.
fn blame(call: &CallDetail) -> String {
    let mut text = match call.fault() {
        None => String::new(),
        Some(fault) => {
            let name = fault_name(fault);
            match &call.claimed_by {
                Some(worker) if fault == Fault::Worker => {
                    format!("fault: {name} {}", one_line(worker))
                }
                _ => format!("fault: {name}"),
            }
        }
    };
    if let Some(evidence) = &call.evidence {
        write!(text, " ({})", one_line(evidence)).ok();
    }
    if !text.is_empty() {
        text += "; ";
    }
    text + if call.charged {
        "charged"
    } else {
        "not charged"
    }
}

fn last_call(row: &MessageRow) -> String {
    let mut what = format!("call {}: done", row.attempts.saturating_add(row.uncharged));
    if let Some(status) = row.http_status {
        write!(what, ", HTTP {status}").ok();
    }
    what += &by(row.claimed_by.as_deref());
    if let Some(request_id) = &row.request_id {
        write!(what, ", request ID {}", one_line(request_id)).ok();
    }
    what
}

fn next(detail: &MessageDetail) -> String {
    let row = &detail.message;
    let worker = row
        .claimed_by
        .as_deref()
        .map_or_else(|| "a worker".into(), one_line);
    let step = match detail.next {
        NextStep::Nothing => {
            return match row.status.as_str() {
                "failed" | "expired" | "cancelled" | "unknown" => format!(
                    "nothing. `worker retry --status {} --id {}` sends it again",
                    row.status, row.id
                ),
                _ => "nothing".into(),
            };
        }
        NextStep::Sending { lease_ends_at } => {
            return format!(
                "{worker} has it, and calls it or waits for its slot; if that worker dies, others take it at {}",
                at(lease_ends_at)
            );
        }
        NextStep::Waits { until } if row.attempts > 0 || row.sent_at.is_some() => {
            format!("the next call is due at {}", at(until))
        }
        NextStep::Waits { until } => format!("the first call is due at {}", at(until)),
        NextStep::Due => "it is due, and waits for a free slot".into(),
        NextStep::Refused { until } => format!(
            "a trigger or a constraint in the database refuses to change it, or takes seconds, so claims pass over it until {}. To have it sent, {}",
            at(until),
            advice::refused(&row.app)
        ),
        NextStep::Lost { lease_ended_at } => format!(
            "{worker} had it and recorded nothing until its lease ended at {}: the next claim finds it",
            at(lease_ended_at)
        ),
    };
    format!("{step}{}", obstacle(&detail.lane, &row.app))
}

/// What keeps all messages of the app, as the end of a sentence.
fn obstacle(lane: &LaneDetail, app: &str) -> String {
    match lane {
        LaneDetail::NoRight => {
            "; whether the app is paused or held is not known: this role may not read lanes".into()
        }
        LaneDetail::None => format!(", but no worker has served the app {app} yet"),
        LaneDetail::Lane(lane) => lane
            .obstacles_text()
            .map_or_else(String::new, |why| format!(", but {}", one_line(&why))),
    }
}
