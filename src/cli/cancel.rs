//! `worker cancel`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;

use super::args::DatabaseArgs;
use super::obstacles::if_readable;
use super::print::{one_line, report};
use crate::config::parse_number;
use crate::outbox::{AdminError, MessageState};

/// Cancel pending messages that no worker is sending
///
/// The same in SQL: select signaling.cancel(17).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  worker cancel 17 18")]
pub(super) struct CancelArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The messages
    #[arg(required = true, value_name = "ID", value_parser = parse_number::<i64>)]
    ids: Vec<i64>,
}

pub(super) async fn run(args: CancelArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let (mut cancelled, mut refused) = (0, 0);
    let mut text = String::new();
    for id in args.ids {
        let (is_done, sentence) = match outbox.cancel(id).await {
            Ok(is_cancelled) => {
                cancelled += usize::from(is_cancelled);
                let states = if_readable(outbox.message_states(&[id]).await)
                    .with_context(|| format!("the database failed after {cancelled} messages"))?;
                describe(id, is_cancelled, states.as_deref())
            }
            // A refused message must not stop the cancellation of the rest.
            Err(error @ AdminError::Refused(_)) => (false, error.to_string()),
            Err(error) => {
                return Err(error).with_context(|| format!("{cancelled} messages are cancelled"));
            }
        };
        refused += usize::from(!is_done);
        writeln!(text, "{}", one_line(&sentence)).ok();
    }
    outbox.close().await;
    report(text, cancelled > 0)?;
    anyhow::ensure!(refused == 0, "not all messages were cancelled");
    Ok(())
}

/// Returns whether the message has the status that the operator asked for, and a sentence. `states` is none if the role has no
/// right to read the message, and empty if there is no such message.
fn describe(id: i64, is_cancelled: bool, states: Option<&[MessageState]>) -> (bool, String) {
    let Some(message) = states.and_then(<[_]>::first) else {
        let text = match states {
            _ if is_cancelled => "is cancelled",
            None => "is not cancelled: it is being sent, is final, or does not exist",
            Some(_) => "is not cancelled: there is no such message",
        };
        return (is_cancelled, format!("{id} {text}"));
    };
    match (is_cancelled, message.state.as_str()) {
        (true, _) if message.attempts == 0 => {
            (true, format!("{id} is cancelled: it was never sent"))
        }
        (true, _) => (
            true,
            format!(
                "{id} is cancelled: no other call of it starts. An earlier call may have arrived; `worker message {id}` shows it"
            ),
        ),
        (false, "cancelled") => (true, format!("{id} was cancelled already")),
        (false, state) => (
            false,
            format!("{id} is not cancelled: its state is {state}"),
        ),
    }
}
