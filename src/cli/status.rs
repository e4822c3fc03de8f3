//! `worker status`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use tokio_util::sync::CancellationToken;

use super::args::{DatabaseArgs, parse_duration};
use super::print::{print, print_line};
use super::screen::Screen;
use super::signals::signals;
use crate::advice;
use crate::error_text::database_error_text;
use crate::outbox::{AppStatus, AsideWorker, LaneState, LaneWorkers, Outbox, Pending};
use crate::pace::DbTime;

/// Show how each app is doing: what waits, for how long, how fast it goes out, and what became of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker status
  worker status --watch
  worker status --json | jq '.[] | {app, pending, queue_wait_last_hour}'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: an array with an object for each app
    #[arg(long)]
    json: bool,

    /// Show it again and again, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    /// How often, with --watch
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval, requires = "watch")]
    every: Duration,
}

/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

fn parse_interval(text: &str) -> Result<Duration, String> {
    parse_duration(text).and_then(|interval| {
        if interval < MIN_INTERVAL {
            Err("it is shorter than 500ms".into())
        } else {
            Ok(interval)
        }
    })
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(1).await?;
    outbox.check_schema().await?;
    if args.watch {
        watch(&outbox, args.every).await?;
    } else {
        let apps = outbox.status().await?;
        if args.json {
            print_line(serde_json::to_string_pretty(&apps)?)?;
        } else {
            print(show_all(&apps))?;
        }
    }
    outbox.close().await;
    Ok(())
}

/// How long the end waits for a terminal that is stopped.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Shows the apps again and again, until a signal asks for the end or nobody reads any more.
async fn watch(outbox: &Outbox, every: Duration) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let ended_at_once = signals(shutdown.clone())?;
    let screen = Screen::new();
    let shown = tokio::select! {
        biased;
        () = ended_at_once => Ok(()),
        shown = shutdown.run_until_cancelled(show_forever(outbox, every, screen)) => shown.unwrap_or(Ok(())),
    };
    tokio::time::timeout(LEAVE_TIMEOUT, screen.leave())
        .await
        .ok();
    match shown {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        shown => shown.context("standard output can't be written"),
    }
}

/// Shows the apps again and again, on a terminal in the same place. A database that is away for a while does not end
/// it.
async fn show_forever(outbox: &Outbox, every: Duration, screen: Screen) -> io::Result<()> {
    let mut text = String::new();
    let look = async || {
        let apps = outbox.status().await?;
        Ok::<_, sqlx::Error>((apps, outbox.viewed_at().await?))
    };
    loop {
        let trouble = match look().await {
            Ok((apps, now)) => {
                text = format!("{}\n\n{}", at(Some(now)), show_all(&apps));
                String::new()
            }
            Err(error) => format!("\nno news: {}\n", database_error_text(&error)),
        };
        screen.show(&format!("{text}{trouble}")).await?;
        tokio::time::sleep(every).await;
    }
}

fn show_all(apps: &[AppStatus]) -> String {
    if apps.is_empty() {
        return "no app has a message or a worker yet\n".into();
    }
    apps.iter().map(show).collect::<Vec<_>>().join("\n")
}

fn show(app: &AppStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<10} {value}").ok();
    line("lane", lane(app));
    if let Some(lane) = &app.lane {
        if let Some(environment) = &lane.environment {
            line("belongs to", format!("the environment {environment}"));
        }
        line("workers", workers(&app.app, &lane.workers));
        for worker in &lane.workers.aside {
            line("aside", aside(worker));
        }
    }
    line(
        "rate",
        format!(
            "{:.1} calls/s over the last 10 s; at most {} in a second of the last minute",
            app.rate_per_s, app.peak_calls_1m
        ),
    );
    line("pending", pending(&app.pending));
    if app.pending.refused > 0 {
        line("refused", refused(&app.app, app.pending.refused));
    }
    if let Some(seconds) = app.pending.oldest_s {
        line("oldest", format!("waits for {}", coarse(seconds)));
    }
    if let Some(time) = app.time_to_drain().filter(|_| app.pending.backlog() > 0) {
        line(
            "drained",
            format!(
                "in about {}, if nothing is added",
                coarse(time.as_secs_f64().max(1.0))
            ),
        );
    }
    if let Some(wait) = &app.queue_wait_last_hour {
        line(
            "queue wait",
            format!(
                "{} median, {} for 95 %, {} for 99 % of the last hour's messages",
                fine(wait.p50_s),
                fine(wait.p95_s),
                fine(wait.p99_s)
            ),
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
    let state = lane.state();
    let mut text = match state {
        LaneState::Sending => state.as_str().into(),
        LaneState::Slowed => format!(
            "slowed to {:.0} calls/s by a 429 at {}",
            lane.rate_per_s,
            at(lane.throttled_at)
        ),
        LaneState::Waiting => format!(
            "no call before {}, as the API asked; `worker resume {}` ends the wait",
            at(lane.retry_after_until),
            app.app
        ),
        LaneState::NoWorker => {
            let hold = lane.hold.as_ref().map(|hold| {
                let since = at(lane.hold_since);
                format!("; {hold} since {since}{}", because(&lane.hold_reason))
            });
            format!("no worker{}", hold.unwrap_or_default())
        }
        LaneState::OtherEnvironment => format!(
            "refused: it belongs to {}, and the workers that are alive to another one ({})",
            advice::environment_name(lane.environment.as_deref()),
            lane.workers.refusing.join(", ")
        ),
        LaneState::Paused => format!(
            "paused by {} since {}{}",
            lane.paused_by.as_deref().unwrap_or("somebody"),
            at(lane.paused_at),
            because(&lane.pause_reason)
        ),
        LaneState::Unauthorized | LaneState::Unavailable => format!(
            "{} since {}, next try {}{}",
            state.as_str(),
            at(lane.hold_since),
            at(lane.hold_until),
            because(&lane.hold_reason)
        ),
    };
    write!(text, "; limit {} calls/s", lane.limit_per_s).ok();
    if let Some(by) = &lane.limit_set_by {
        write!(text, ", set by {by}").ok();
    }
    text
}

/// The workers of an app that are alive.
fn workers(app: &str, workers: &LaneWorkers) -> String {
    match (workers.alive, workers.versions.as_slice()) {
        (0, _) if !workers.refusing.is_empty() => with_advice(
            "none of the app's environment is alive",
            &advice::adopt(app),
        ),
        (0, _) => with_advice("none is alive", advice::NO_WORKER),
        (alive, [_, _, ..]) => format!(
            "{alive} alive, of versions {}",
            workers.versions.join(" and ")
        ),
        (alive, _) => format!("{alive} alive"),
    }
}

/// Messages that claims pass over.
fn refused(app: &str, messages: u64) -> String {
    with_advice(
        &format!(
            "{messages}: a trigger or a constraint in the database refuses to change them or takes seconds for each, so they are not sent"
        ),
        &advice::refused(app),
    )
}

fn aside(worker: &AsideWorker) -> String {
    let since = at(Some(worker.since));
    let found = format!(
        "{} has stepped aside since {since}: {}",
        worker.name, worker.reason
    );
    with_advice(&found, advice::ASIDE)
}

/// A value in a line, and below it what to do.
pub(super) fn with_advice(found: &str, advice: &str) -> String {
    format!("{found}\n  {:<10} -> {advice}", "")
}

/// A time, to the second.
pub(super) fn at(time: Option<DbTime>) -> String {
    time.map(OffsetDateTime::from)
        .and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// A duration, to the second.
pub(super) fn coarse(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or(Duration::MAX);
    humantime::format_duration(duration).to_string()
}

/// A duration that may be short.
fn fine(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds => coarse(seconds),
    }
}

fn pending(pending: &Pending) -> String {
    let counts: BTreeMap<String, u64> = pending
        .by_state()
        .into_iter()
        .filter(|(_, messages)| *messages > 0)
        .map(|(state, messages)| (state.to_owned(), messages))
        .collect();
    let counts = self::counts(&counts);
    match pending.counted_ago_s {
        Some(ago_s) if ago_s >= 5.0 => format!("{counts}, as counted {} ago", coarse(ago_s)),
        _ => counts,
    }
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
