//! `worker cancel`

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::{after_steps, messages, one_line, report};
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
            // A refused message must not stop the cancellation of the rest.
            Err(error @ AdminError::Refused(_)) => (false, error.to_string()),
            result => {
                let did = format!("cancelled {}", messages(cancelled));
                let is_cancelled = after_steps(result, cancelled, &did)?;
                cancelled += i64::from(is_cancelled);
                describe(id, is_cancelled, outbox.message_row(id).await)
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

/// Returns whether the message is cancelled, and a sentence. `message` is none if there is no such message, and an error if
/// the role may not read it.
fn describe(
    id: i64,
    is_cancelled: bool,
    message: Result<Option<MessageRow>, sqlx::Error>,
) -> (bool, String) {
    let sentence = match message {
        Err(_) if is_cancelled => "is cancelled".into(),
        Err(_) => "is not cancelled: it is being sent, is final, or does not exist".into(),
        Ok(None) if !is_cancelled => "is not cancelled: there is no such message".into(),
        Ok(Some(message)) if !is_cancelled && message.status == "cancelled" => {
            return (true, format!("{id} was cancelled already"));
        }
        Ok(Some(message)) if !is_cancelled => {
            format!("is not cancelled: its state is {}", message.state)
        }
        Ok(Some(message))
            if message.sent_at.is_none() && message.attempts + message.uncharged == 0 =>
        {
            "is cancelled: it was never sent".into()
        }
        Ok(_) => format!(
            "is cancelled: no further call starts. An earlier call may have arrived; `worker message {id}` shows it"
        ),
    };
    (is_cancelled, format!("{id} {sentence}"))
}
