//! What a person sees while sample messages go out: a live line on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::outbox::{Outbox, SampleRow};
use crate::output::OutputQueue;
use simulator::AppSummary;

const LIVE_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows how it goes until `count` messages are final (true) or `shutdown` is cancelled (false).
pub(super) async fn watch(
    outbox: &Outbox,
    count: usize,
    shutdown: &CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<bool> {
    let on_terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(LIVE_EVERY);
    let mut last_line = Instant::now();
    let mut last_final = (Instant::now(), 0);
    let mut rate = 0.0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return Ok(false),
        }
        let counts = outbox.sample_counts().await?;
        let finished = counts
            .iter()
            .filter(|(state, _)| !is_pending(state))
            .map(|(_, rows)| rows)
            .sum::<i64>();
        let done = usize::try_from(finished)? >= count;
        if last_final.0.elapsed() >= LINE_EVERY {
            #[expect(clippy::cast_precision_loss, reason = "a count of a second")]
            let more = (finished - last_final.1) as f64;
            rate = more / last_final.0.elapsed().as_secs_f64();
            last_final = (Instant::now(), finished);
        }
        let line = format!(
            "{finished:>6} of {count} final   {rate:>5.0} messages/s   {}",
            show_counts(&counts)
        );
        if on_terminal {
            out.push(format!("\r\x1b[2K{line}").as_bytes());
        } else if done || last_line.elapsed() >= LINE_EVERY {
            out.push_line(&line);
            last_line = Instant::now();
        }
        if done {
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

fn show_counts(counts: &BTreeMap<String, i64>) -> String {
    counts
        .iter()
        .map(|(state, rows)| format!("{rows} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The end of the show: what became of the messages, and how the pace was, as the API counted it.
pub(super) fn summary(rows: &[SampleRow], app: Option<&AppSummary>) -> String {
    let mut by_status: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let (messages, repeated) = by_status.entry(&row.status).or_default();
        *messages += 1;
        *repeated += usize::from(row.attempts > 1);
    }
    let mut text = String::from("\nstatus              messages   after a retry");
    for (status, (messages, repeated)) in by_status {
        // Writing into a string does not fail.
        write!(text, "\n{status:<18} {messages:>9} {repeated:>15}").ok();
    }
    if let Some(app) = app {
        write!(
            text,
            "\n\ncalls                {:>7}   as the API counted them
calls a second       {:>7.1}   on average
worst sliding second {:>7}   calls
answered 429         {:>7}",
            app.calls,
            app.calls_per_s,
            app.worst_sliding_second,
            app.by_status.get(&429).unwrap_or(&0)
        )
        .ok();
    }
    text
}
