//! Shows the progress of the sample messages, and their summary.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::print::print_line;
use crate::outbox::{MessageState, Outbox};
use simulator::AppSummary;

/// Prints a line a second until `count` messages are final (true) or `shutdown` is cancelled (false).
pub(super) async fn watch(
    outbox: &Outbox,
    count: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<bool> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(false),
        }
        let counts = outbox.sample_counts().await?;
        let finished = counts.iter().filter(|(state, _)| !is_pending(state));
        let finished: i64 = finished.map(|(_, rows)| rows).sum();
        let states: Vec<_> = counts
            .iter()
            .map(|(state, rows)| format!("{rows} {state}"))
            .collect();
        print_line(format!(
            "{finished:>6} of {count} final   {:>5} messages/s   {}",
            finished - before,
            states.join(", ")
        ))?;
        before = finished;
        if usize::try_from(finished)? >= count {
            return Ok(true);
        }
    }
}

fn is_pending(state: &str) -> bool {
    matches!(state, "scheduled" | "queued" | "sending" | "retrying")
}

/// The final statuses of the messages, and the pace as the API counted it.
pub(super) fn summary(rows: &[MessageState], app: Option<&AppSummary>) -> String {
    let mut by_status: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let (messages, retried) = by_status.entry(&row.status).or_default();
        *messages += 1;
        *retried += usize::from(row.attempts > 1);
    }
    let mut text = String::from("\nstatus              messages   after a retry");
    for (status, (messages, retried)) in by_status {
        // Writing to a string can't fail.
        write!(text, "\n{status:<18} {messages:>9} {retried:>15}").ok();
    }
    if let Some(app) = app {
        write!(
            text,
            "\n\ncalls                {:>7}   as the API counted them
calls a second       {:>7.1}   on average
worst sliding second {:>7}   calls
answered 429         {:>7}",
            app.calls,
            app.calls_per_s(),
            app.worst_sliding_second,
            app.by_status.get(&429).unwrap_or(&0)
        )
        .ok();
    }
    text
}
