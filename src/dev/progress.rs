//! Shows the progress of the sample messages: a live line on a terminal, otherwise a line a second.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::outbox::{MessageState, Outbox};
use crate::output::OutputQueue;
use simulator::AppSummary;

const LIVE_INTERVAL: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

/// Shows the progress until `count` messages are final (true) or `shutdown` is cancelled (false).
pub(super) async fn watch(
    outbox: &Outbox,
    count: usize,
    shutdown: &CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<bool> {
    let on_terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(LIVE_INTERVAL);
    let (mut measured_at, mut measured, mut rate) = (Instant::now(), 0, 0.0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(false),
        }
        let counts = outbox.sample_counts().await?;
        let finished = counts.iter().filter(|(state, _)| !is_pending(state));
        let finished: i64 = finished.map(|(_, rows)| rows).sum();
        let is_done = usize::try_from(finished)? >= count;
        let elapsed = measured_at.elapsed();
        if elapsed >= SECOND {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let more = (finished - measured) as f64;
            rate = more / elapsed.as_secs_f64();
            (measured_at, measured) = (Instant::now(), finished);
        }
        let states: Vec<_> = counts
            .iter()
            .map(|(state, rows)| format!("{rows} {state}"))
            .collect();
        let line = format!(
            "{finished:>6} of {count} final   {rate:>5.0} messages/s   {}",
            states.join(", ")
        );
        if on_terminal {
            out.push(format!("\r\x1b[2K{line}").as_bytes());
        } else if is_done || elapsed >= SECOND {
            out.push_line(&line);
        }
        if is_done {
            if on_terminal {
                out.push_line("");
            }
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
