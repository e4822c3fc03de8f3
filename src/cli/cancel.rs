//! `worker cancel`

use std::fmt::Write;

use anyhow::Context;
use clap::Args;

use super::args::DatabaseArgs;
use super::print::{one_line, report};
use crate::config::parse_number;
use crate::outbox::{AdminError, MessageRow};

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
                let message = outbox.message_row(id).await;
                let message = message
                    .with_context(|| format!("the database failed after {cancelled} messages"))?;
                describe(id, is_cancelled, message.as_ref())
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
    report(text)?;
    anyhow::ensure!(refused == 0, "not all messages were cancelled");
    Ok(())
}

/// Returns whether the message is cancelled, and a sentence. `message` is none if there is no such message.
fn describe(id: i64, is_cancelled: bool, message: Option<&MessageRow>) -> (bool, String) {
    let sentence = match message {
        None if !is_cancelled => "is not cancelled: there is no such message".into(),
        Some(message) if !is_cancelled && message.status == "cancelled" => {
            return (true, format!("{id} was cancelled already"));
        }
        Some(message) if !is_cancelled => {
            format!("is not cancelled: its state is {}", message.state)
        }
        Some(message) if message.attempts + message.uncharged == 0 => {
            "is cancelled: it was never sent".into()
        }
        _ => format!(
            "is cancelled: no other call of it starts. An earlier call may have arrived; `worker message {id}` shows it"
        ),
    };
    (is_cancelled, format!("{id} {sentence}"))
}
