//! `worker status`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::args::DatabaseArgs;
use crate::outbox::{AppStatus, Pending};

/// Show how each app is doing: what waits, for how long, how fast it goes out, and what became of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker status
  worker status --json | jq '.[] | {app, pending}'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: an array with an object for each app
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(1).await?;
    outbox.check_schema().await?;
    let apps = outbox.status().await?;
    outbox.close().await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&apps)?);
    } else if apps.is_empty() {
        println!("no app has a message or a worker yet");
    } else {
        print!("{}", apps.iter().map(show).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

fn show(app: &AppStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<10} {value}").ok();
    line("lane", lane(app));
    line(
        "rate",
        format!(
            "{:.1} calls/s over the last 10 s; at most {} in a second of the last minute",
            app.rate_per_s, app.peak_calls_1m
        ),
    );
    line("pending", pending(&app.pending));
    if let Some(seconds) = app.pending.oldest_s {
        let age = Duration::from_secs_f64(seconds.max(0.0).floor());
        line(
            "oldest",
            format!("waits for {}", humantime::format_duration(age)),
        );
    }
    line(
        "finished",
        format!("{} in the last 24 h", counts(&app.finished_24h)),
    );
    format!("{}\n{text}", app.app)
}

fn lane(app: &AppStatus) -> String {
    let Some(lane) = &app.lane else {
        return "none: no worker has served this app yet".into();
    };
    let because = |reason: &Option<String>| {
        reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default()
    };
    let at = |time: Option<OffsetDateTime>| {
        time.and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
            .unwrap_or_default()
    };
    let mut text = if lane.paused_at.is_some() {
        let by = lane.paused_by.as_deref().unwrap_or("somebody");
        format!(
            "paused by {by} since {}{}",
            at(lane.paused_at),
            because(&lane.pause_reason)
        )
    } else if let Some(hold) = &lane.hold {
        format!(
            "{hold} since {}, next try {}{}",
            at(lane.hold_since),
            at(lane.hold_until),
            because(&lane.hold_reason)
        )
    } else if lane.told_to_wait {
        format!(
            "no call before {}, as the API asked",
            at(Some(lane.next_slot_at))
        )
    } else if lane.rate_per_s < 0.97 * lane.limit_per_s {
        format!(
            "slowed to {:.0} calls/s by a 429 at {}",
            lane.rate_per_s,
            at(lane.throttled_at)
        )
    } else {
        "sending".into()
    };
    write!(text, "; limit {} calls/s", lane.limit_per_s).ok();
    if let Some(by) = &lane.limit_set_by {
        write!(text, ", set by {by}").ok();
    }
    text
}

fn pending(pending: &Pending) -> String {
    let states = [
        ("queued", pending.queued),
        ("scheduled", pending.scheduled),
        ("retrying", pending.retrying),
        ("sending", pending.sending),
    ];
    let counts: BTreeMap<String, u64> = states
        .into_iter()
        .filter(|(_, messages)| *messages > 0)
        .map(|(state, messages)| (state.to_owned(), messages))
        .collect();
    self::counts(&counts)
}

fn counts(by_state: &BTreeMap<String, u64>) -> String {
    if by_state.is_empty() {
        return "none".into();
    }
    by_state
        .iter()
        .map(|(state, rows)| format!("{rows} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}
