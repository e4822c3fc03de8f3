//! `worker cancel`

use clap::Args;

use super::args::{DatabaseArgs, parse_id};
use super::obstacles::if_readable;
use super::print::{after_change, one_line, print_line, with_effect};
use super::status;
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
    #[arg(required = true, value_name = "ID", value_parser = parse_id)]
    ids: Vec<i64>,
}

pub(super) async fn run(args: CancelArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let mut refused = 0;
    let mut has_cancelled = false;
    // A closed or full output must not leave some messages uncancelled.
    let mut printed = Ok(());
    for id in args.ids {
        let is_cancelled = match outbox.cancel(id).await {
            Ok(is_cancelled) => is_cancelled,
            // A refused message must not stop the cancellation of the rest.
            Err(error @ AdminError::Refused(_)) => {
                refused += 1;
                printed = printed.and(print_line(one_line(&error.to_string())));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        has_cancelled |= is_cancelled;
        let found = if_readable(outbox.message_states(&[id]).await);
        let found = if has_cancelled {
            after_change(found)?
        } else {
            found?
        };
        let (is_done, sentence) = match found {
            Some(states) => result(id, is_cancelled, states.first()),
            // The role has no right to read the message.
            None if is_cancelled => result(id, true, None),
            None => (
                false,
                format!("{id} is not cancelled: it is being sent, is final, or does not exist"),
            ),
        };
        refused += usize::from(!is_done);
        printed = printed.and(print_line(one_line(&sentence)));
    }
    outbox.close().await;
    with_effect(printed, has_cancelled)?;
    anyhow::ensure!(refused == 0, "not all messages were cancelled");
    Ok(())
}

/// Returns whether the message has the status that the operator asked for, and a sentence.
fn result(id: i64, is_cancelled: bool, message: Option<&MessageState>) -> (bool, String) {
    let Some(message) = message else {
        let sentence = if is_cancelled {
            format!("{id} is cancelled")
        } else {
            format!(
                "{id} is not cancelled: there is no such message. It was never inserted, its transaction is not committed, or it is deleted already"
            )
        };
        return (is_cancelled, sentence);
    };
    let finished_at = status::at(message.finished_at);
    match (is_cancelled, message.status.as_str()) {
        (true, _) if message.attempts == 0 => {
            (true, format!("{id} is cancelled: it was never sent"))
        }
        (true, _) => (
            true,
            format!(
                "{id} is cancelled: no other call of it starts. An earlier call may have arrived; `worker message {id}` shows it"
            ),
        ),
        (false, "cancelled") => (
            true,
            format!("{id} was cancelled already, at {finished_at}"),
        ),
        (false, "pending") if message.state == "sending" => {
            let worker = message.claimed_by.as_deref().unwrap_or("a worker");
            (
                false,
                format!(
                    "{id} is not cancelled: {worker} is sending it now, and records its outcome"
                ),
            )
        }
        (false, "pending") => (
            false,
            format!("{id} is not cancelled: a worker has just released it. Cancel it again"),
        ),
        (false, status) => (
            false,
            format!("{id} is not cancelled: it was {status} already, at {finished_at}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::DbTime;

    #[test]
    fn a_refusal_names_the_state_of_the_message() {
        let message = |status: &str, state: &str| MessageState {
            id: 17,
            status: status.into(),
            state: state.into(),
            attempts: 1,
            claimed_by: Some("worker-1".into()),
            finished_at: Some(DbTime::from_micros(0)),
        };
        for (is_cancelled, found, is_done, phrase) in [
            (
                true,
                Some(message("cancelled", "cancelled")),
                true,
                "may have arrived",
            ),
            (
                false,
                Some(message("cancelled", "cancelled")),
                true,
                "already, at 1970",
            ),
            (
                false,
                Some(message("message_sent", "message_sent")),
                false,
                "was message_sent already",
            ),
            (
                false,
                Some(message("pending", "sending")),
                false,
                "worker-1 is sending it now",
            ),
            (
                false,
                Some(message("pending", "queued")),
                false,
                "Cancel it again",
            ),
            (false, None, false, "there is no such message"),
        ] {
            let (done, sentence) = result(17, is_cancelled, found.as_ref());
            assert_eq!(done, is_done, "{sentence}");
            assert!(sentence.contains(phrase), "{sentence}");
        }
    }
}
