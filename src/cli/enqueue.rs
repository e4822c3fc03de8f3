//! `worker enqueue`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;

use super::UsageError;
use super::args::{DatabaseArgs, parse_time};
use super::obstacles::if_readable;
use super::print::{messages as messages_text, one_line, print};
use crate::message::NewMessage;
use crate::outbox::{EnqueueError, InvalidLines, read_json_lines};
use crate::telemetry;

/// Insert one message from flags, or many from JSON lines on standard input
///
/// Applications insert into signaling.outbox in their own transactions instead. This command inserts all messages in one
/// transaction, or none. It prints the id of each message, and on standard error the reason why messages wait.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = "Examples:
  worker enqueue --sender alice --destination bob --payload 'Hello' --wait-for-ack
  worker enqueue --sender alice --channel lobby --payload 'Hello all'
  printf '{\"sender\":\"alice\",\"destination\":\"bob\",\"payload\":\"hi\"}\\n' | worker enqueue --stdin

The keys of a JSON line are the columns of signaling.outbox. Each line needs sender, payload, and destination or
channel_name. Times are written like 2030-01-31T12:00:00Z; a date like 2030-01-31 is its midnight in UTC.")]
pub(super) struct EnqueueArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Read messages from standard input, one JSON object a line
    #[arg(long, conflicts_with_all = ["sender", "destination", "channel", "payload", "app", "wait_for_ack",
          "offline_messaging", "historical_messaging", "due_at", "expires_at", "max_attempts", "at_most_once", "dedupe_key"])]
    stdin: bool,

    /// The sending user
    #[arg(long, required_unless_present = "stdin")]
    sender: Option<String>,

    /// The recipient
    #[arg(long, conflicts_with = "channel")]
    destination: Option<String>,

    /// The channel, instead of a recipient
    #[arg(long)]
    channel: Option<String>,

    /// The text of the message
    #[arg(long, required_unless_present = "stdin")]
    payload: Option<String>,

    /// The app, as in the workers' settings
    #[arg(long)]
    app: Option<String>,

    /// Wait for the recipient's acknowledgement, so that the status is delivered or offline
    #[arg(long)]
    wait_for_ack: bool,

    /// Let the API store the message for an offline recipient
    #[arg(long)]
    offline_messaging: bool,

    /// Let the API store the message in the history
    #[arg(long)]
    historical_messaging: bool,

    /// Earliest time of the first call, like 2030-01-31T12:00:00Z; a date is its midnight in UTC
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    due_at: Option<OffsetDateTime>,

    /// The message expires at this time if it is still pending
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    expires_at: Option<OffsetDateTime>,

    /// Number of charged attempts after which the message ends as failed
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_attempts: Option<u16>,

    /// End as unknown instead of a retry after an ambiguous call
    #[arg(long)]
    at_most_once: bool,

    /// A key that is unique within the app. The database skips a message with an existing key
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
        let message = NewMessage {
            app: args.app,
            sender: args.sender.unwrap_or_default(),
            destination: args.destination,
            channel_name: args.channel,
            payload: args.payload.unwrap_or_default(),
            wait_for_ack: args.wait_for_ack,
            enable_offline_messaging: args.offline_messaging,
            enable_historical_messaging: args.historical_messaging,
            due_at: args.due_at,
            expires_at: args.expires_at,
            max_attempts: args.max_attempts,
            at_most_once: args.at_most_once,
            dedupe_key: args.dedupe_key,
            traceparent: None,
        };
        let checked = message.check();
        checked.map_err(|error| UsageError(error.to_string()))?;
        vec![message]
    };
    let outbox = args.database.connect(1).await?;
    let inserted = outbox.enqueue(&messages).await;
    let ids = inserted.map_err(|error| match error {
        EnqueueError::Invalid(_) | EnqueueError::Refused { .. } => {
            UsageError(format!("{error}: no message was inserted")).into()
        }
        EnqueueError::Changed | EnqueueError::Database(_) => anyhow::Error::from(error),
    })?;
    let inserted: Vec<i64> = ids.iter().copied().flatten().collect();
    let mut lines = String::new();
    for id in &inserted {
        writeln!(lines, "{id}").ok();
    }
    print(lines).context("all messages are inserted, but their ids are not printed")?;
    let waiting = if_readable(outbox.waiting_for(&inserted).await).context(
        "all messages are inserted, but the database failed before the report of the reasons why messages wait",
    )?;
    outbox.close().await;
    // Programs read the ids from standard output.
    for group in waiting.unwrap_or_default() {
        let (count, app) = (messages_text(group.messages), &group.app);
        let waits_for = group.waits_for.as_deref().map(one_line);
        telemetry::print_stderr(&match waits_for {
            Some(waits_for) => format!("{count} of {app} waiting for {waits_for}"),
            None => format!("{count} of {app} finished at once"),
        });
    }
    let repeated = ids.len() - inserted.len();
    if repeated > 0 {
        telemetry::print_stderr(&format!(
            "{repeated} of {} exist already, by their dedupe_key",
            ids.len()
        ));
    }
    Ok(())
}
