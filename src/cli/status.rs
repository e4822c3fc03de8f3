//! `worker status`

use std::fmt::Display;
use std::time::Duration;

use super::args::ReadArgs;
use super::print::{advice, block};
use crate::advice as texts;
use crate::outbox::{AppStatus, LaneState, LaneStatus, Outbox, Pending};
use crate::time_text::duration;

pub(super) async fn run(args: ReadArgs) -> anyhow::Result<()> {
    let status = async |outbox: &Outbox| {
        // A standby takes no writes, so the command shows the last count there.
        outbox.refresh_queue_counts(Duration::ZERO).await.ok();
        outbox.status().await
    };
    let text = |apps: &Vec<AppStatus>| {
        if apps.is_empty() {
            return "no app has a message or a worker yet\n".into();
        }
        apps.iter().map(show).collect::<Vec<_>>().join("\n")
    };
    args.show(status, text).await
}

fn show(app: &AppStatus) -> String {
    let mut lines = match &app.lane {
        None => vec![("lane", "none: no worker has served this app".to_owned())],
        Some(lane) => lane_lines(lane),
    };
    let (rate, peak) = (app.rate_per_s, app.peak_calls_1m);
    let peak = format!("at most {peak} in a second of the last minute");
    let rate = format!("{rate:.1} calls/s over the last 10 s; {peak}");
    lines.push(("rate", rate));
    lines.push(("pending", pending(&app.pending)));
    if app.pending.refused > 0 {
        let refused = app.pending.refused;
        lines.push(("refused", format!("{refused}: workers do not send these messages, because a trigger or a constraint refuses their changes or takes seconds for each")));
        lines.push(advice(&texts::refused(&app.app)));
    }
    if let Some(seconds) = app.pending.oldest_s {
        lines.push(("oldest", format!("waits for {}", duration(seconds))));
    }
    if let Some(wait) = &app.queue_wait_last_hour {
        let (median, p95, p99) = (wait.p50_s, wait.p95_s, wait.p99_s);
        lines.push(("queue wait", format!("{median:.3} s median, {p95:.3} s for 95 %, {p99:.3} s for 99 % of the last hour's messages")));
    }
    let finished = counts(app.finished_24h.clone());
    lines.push(("finished", format!("{finished} in the last 24 h")));
    block(&app.app, &lines)
}

fn lane_lines(lane: &LaneStatus) -> Vec<(&'static str, String)> {
    let state = match lane.state() {
        LaneState::Throttled => {
            let at = lane.throttled_at.map(|at| format!(" at {at}"));
            let (rate, at) = (lane.rate_per_s, at.unwrap_or_default());
            format!("throttled to {rate:.0} calls/s by a 429{at}")
        }
        state => state.into_str().replace('_', " "),
    };
    let mut state = format!("{state}; limit {} calls/s", lane.limit_per_s);
    if let Some(by) = &lane.limit_set_by {
        state = format!("{state}, set by {by}");
    }
    let mut lines = vec![("lane", state)];
    for obstacle in &lane.obstacles {
        lines.push(("obstacle", obstacle.sentence.clone()));
    }
    if let Some(environment) = &lane.environment {
        lines.push(("belongs to", format!("the environment {environment}")));
    }
    let mut workers = format!("{} alive", lane.workers.alive);
    if lane.workers.aside > 0 {
        let aside = lane.workers.aside;
        workers = format!("{workers}, {aside} aside: `worker workers` shows why");
    }
    lines.push(("workers", workers));
    lines
}

fn pending(pending: &Pending) -> String {
    let counts = counts(pending.by_state());
    match pending.counted_ago_s {
        Some(ago_s) if ago_s >= 5.0 => format!("{counts}, as counted {} ago", duration(ago_s)),
        _ => counts,
    }
}

fn counts<S: Display>(by_state: impl IntoIterator<Item = (S, u64)>) -> String {
    let counts: Vec<_> = by_state
        .into_iter()
        .filter(|(_, messages)| *messages > 0)
        .map(|(state, messages)| format!("{messages} {state}"))
        .collect();
    if counts.is_empty() {
        return "none".into();
    }
    counts.join(", ")
}
