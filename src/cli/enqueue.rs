//! `worker enqueue`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;

use super::UsageError;
use super::args::{DatabaseArgs, parse_time};
use super::obstacles::if_readable;
use super::print::{one_line, print};
use crate::message::{MessageColumns, NewMessage};
use crate::outbox::{EnqueueError, InvalidLines, Waiting, read_json_lines};
use crate::telemetry;

/// Insert messages: one given by flags, or many as JSON lines on standard input
///
/// An application does not need this: it inserts into signaling.outbox in its own transaction. All messages of a
/// call are inserted in one transaction, or none is. Prints the id of each message, and on standard error what the
/// messages wait for.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "Examples:
  worker enqueue --sender alice --destination bob --payload 'Hello' --wait-for-ack
  worker enqueue --sender alice --channel lobby --payload 'Hello all'
  printf '{\"sender\":\"alice\",\"destination\":\"bob\",\"payload\":\"hi\"}\\n' | worker enqueue --stdin

The keys of a JSON line are the columns of signaling.outbox; sender, payload, and one of destination and
channel_name are needed. Times are written like 2030-01-31T12:00:00Z; a date like 2030-01-31 is its midnight in UTC.")]
pub(super) struct EnqueueArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Read messages from standard input, one JSON object a line
    #[arg(long, conflicts_with_all = ["sender", "destination", "channel", "payload", "app", "wait_for_ack",
          "offline_messaging", "historical_messaging", "due_at", "expires_at", "max_attempts", "at_most_once", "dedupe_key"])]
    stdin: bool,

    /// The user who sends
    #[arg(long, required_unless_present = "stdin")]
    sender: Option<String>,

    /// The user who receives
    #[arg(long, conflicts_with = "channel")]
    destination: Option<String>,

    /// The channel to send to, instead
    #[arg(long)]
    channel: Option<String>,

    /// The text
    #[arg(long, required_unless_present = "stdin")]
    payload: Option<String>,

    /// Which configured app sends it
    #[arg(long)]
    app: Option<String>,

    /// Wait for the receiver, to tell delivered from offline
    #[arg(long)]
    wait_for_ack: bool,

    /// Keep it for a receiver that is offline
    #[arg(long)]
    offline_messaging: bool,

    /// Keep it as a historical message
    #[arg(long)]
    historical_messaging: bool,

    /// Earliest time to send, like 2030-01-31T12:00:00Z; a date is its midnight in UTC
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    due_at: Option<OffsetDateTime>,

    /// Not sent after this
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    expires_at: Option<OffsetDateTime>,

    /// Calls that may go wrong before it ends as failed
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_attempts: Option<u16>,

    /// Never call it again after a call whose outcome is not known
    #[arg(long)]
    at_most_once: bool,

    /// A key that is unique for the app: a message whose key is there already is not inserted again
    #[arg(long)]
    dedupe_key: Option<String>,
}

pub(super) async fn run(args: EnqueueArgs) -> anyhow::Result<()> {
    let messages = if args.stdin {
        read_json_lines(std::io::stdin().lock()).map_err(|error| match error {
            InvalidLines::Unreadable(_) => anyhow::Error::from(error),
            error => UsageError(error.to_string()).into(),
        })?
    } else {
        if args.destination.is_none() && args.channel.is_none() {
            let usage = "name the recipient: --destination USER or --channel NAME";
            return Err(UsageError(usage.into()).into());
        }
        let message =
            NewMessage::try_from(args.columns()).map_err(|error| UsageError(error.to_string()))?;
        vec![message]
    };
    let outbox = args.database.connect(1).await?;
    let ids = outbox
        .enqueue(&messages)
        .await
        .map_err(|error| match error {
            EnqueueError::Refused { .. } => {
                UsageError(format!("{error}: none was inserted")).into()
            }
            EnqueueError::Changed | EnqueueError::Database(_) => anyhow::Error::from(error),
        })?;
    let inserted: Vec<i64> = ids.iter().copied().flatten().collect();
    let mut lines = String::new();
    for id in &inserted {
        // Writing into a string does not fail.
        writeln!(lines, "{id}").ok();
    }
    print(lines).context("all messages are inserted, but their ids are not printed")?;
    let waiting = if_readable(outbox.waiting_for(&inserted).await).context(
        "all messages are inserted, but the database failed before it said what they wait for",
    )?;
    outbox.close().await;
    // Standard output has the ids alone, for programs.
    for group in waiting.unwrap_or_default() {
        telemetry::print_stderr(&waits(&group));
    }
    let repeated = ids.iter().filter(|id| id.is_none()).count();
    if repeated > 0 {
        telemetry::print_stderr(&format!(
            "{repeated} of {} were there already, by their dedupe_key",
            ids.len()
        ));
    }
    Ok(())
}

/// The reasons why inserted messages wait.
fn waits(group: &Waiting) -> String {
    let (messages, wait, were) = match group.messages {
        1 => ("1 message".into(), "waits", "was"),
        messages => (format!("{messages} messages"), "wait", "were"),
    };
    match &group.waits_for {
        Some(waits_for) => format!(
            "{messages} of {} {wait} for {}",
            group.app,
            one_line(waits_for)
        ),
        None => format!("{messages} of {} {were} finished at once", group.app),
    }
}

impl EnqueueArgs {
    fn columns(&self) -> MessageColumns {
        MessageColumns {
            app: self.app.clone(),
            sender: self.sender.clone().unwrap_or_default(),
            destination: self.destination.clone(),
            channel_name: self.channel.clone(),
            payload: self.payload.clone().unwrap_or_default(),
            wait_for_ack: self.wait_for_ack,
            enable_offline_messaging: self.offline_messaging,
            enable_historical_messaging: self.historical_messaging,
            due_at: self.due_at,
            expires_at: self.expires_at,
            max_attempts: self.max_attempts,
            at_most_once: self.at_most_once,
            dedupe_key: self.dedupe_key.clone(),
            traceparent: None,
        }
    }
}
