//! `worker message`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;

use super::args::ReadArgs;
use super::print::{block, one_line};
use crate::config::parse_number;
use crate::message_text::{fault, next_step, timeline};
use crate::outbox::{MessageDetail, Outbox};

/// Show one message: its state, its calls, and what happens next
///
/// Needs the privileges of a reader. With --payload, needs the privilege to read payloads.
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

pub(super) async fn run(args: MessageArgs) -> anyhow::Result<()> {
    let message = async |outbox: &Outbox| {
        let found = outbox.message(args.id, args.payload).await?;
        let detail = found.with_context(|| {
            format!("there is no message {}: it was never inserted, its transaction is not committed, or it is deleted already", args.id)
        })?;
        anyhow::ensure!(
            detail.payload.is_some() || !args.payload,
            "this role may not read payloads: leave out --payload, or log in as a role that also has the privileges of a producer (`worker grant producer`)"
        );
        Ok::<_, anyhow::Error>(detail)
    };
    args.read.show(message, show).await
}

fn show(detail: &MessageDetail) -> String {
    let mut text = heading(detail) + "\n";
    for (when, lines) in timeline(detail) {
        let mut when = when.to_string();
        for line in lines {
            writeln!(text, "  {when:27}  {}", one_line(&line)).ok();
            when.clear();
        }
    }
    writeln!(text, "\nnext: {}", one_line(&next_step(detail))).ok();
    if let Some((call, advice)) = detail.last_failure() {
        let (attempt, fault) = (call.attempt, one_line(&fault(call)));
        let why = format!("call {attempt} failed. {fault}\n      -> {advice}");
        writeln!(text, "why:  {why}").ok();
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
        lines.push(("expires", expires_at.to_string()));
    }
    let heading = format!("message {} of app {}: {}", row.id, row.app, row.state);
    block(&heading, &lines)
}

/// Dropping a control character would show another payload, and printing it would change the operator's terminal.
fn printable(payload: &str) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    payload.chars().map(escaped).collect()
}
