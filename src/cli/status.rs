//! `worker status`

use std::fmt::{Display, Write};
use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::args::{DatabaseArgs, parse_duration};
use super::print::print_as;
use super::screen::Screen;
use super::signals::signals;
use crate::advice;
use crate::error_text::database_error_text;
use crate::outbox::{AppStatus, AsideWorker, LaneState, LaneWorkers, Outbox, Pending};
use crate::pace::DbTime;

/// Show the state of each app: its lane, workers, rate, pending and finished messages
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

    /// Refresh the output until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    /// The interval of --watch
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval, requires = "watch")]
    every: Duration,
}

/// A shorter interval would burden the database.
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
    let outbox = args.database.connect_migrated().await?;
    if args.watch {
        watch(&outbox, args.every).await?;
    } else {
        print_as(args.json, &outbox.status().await?, |apps| show_all(apps))?;
    }
    outbox.close().await;
    Ok(())
}

/// A terminal that is stopped with Ctrl-S must not block the end of the command.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Refreshes until a signal or the end of the reader.
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

/// While the database is unavailable, shows the last state with the error.
async fn show_forever(outbox: &Outbox, every: Duration, screen: Screen) -> io::Result<()> {
    let mut text = String::new();
    let read = async || {
        let apps = outbox.status().await?;
        Ok::<_, sqlx::Error>((apps, outbox.viewed_at().await?))
    };
    loop {
        let failure = match read().await {
            Ok((apps, now)) => {
                text = format!("{}\n\n{}", at(Some(now)), show_all(&apps));
                String::new()
            }
            Err(error) => format!("\nnot refreshed: {}\n", database_error_text(&error)),
        };
        screen.show(&format!("{text}{failure}")).await?;
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
        format!(
            "{} in the last 24 h",
            counts(
                app.finished_24h
                    .iter()
                    .map(|(status, messages)| (status, *messages))
            )
        ),
    );
    format!("{}\n{text}", app.app)
}

fn lane(app: &AppStatus) -> String {
    let Some(lane) = &app.lane else {
        return "none: no worker has served this app".into();
    };
    let state = lane.state();
    let mut text = match state {
        LaneState::Sending => state.into_str().into(),
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
                format!(
                    "; {hold} since {since}{}",
                    advice::because(lane.hold_reason.as_deref())
                )
            });
            format!("no worker{}", hold.unwrap_or_default())
        }
        LaneState::OtherEnvironment => format!(
            "refused: the app belongs to {}, and the live workers to another one ({})",
            advice::environment_name(lane.environment.as_deref()),
            lane.workers.refusing.join(", ")
        ),
        LaneState::Paused => format!(
            "paused by {} since {}{}",
            lane.paused_by
                .as_deref()
                .unwrap_or(advice::UNNAMED_OPERATOR),
            at(lane.paused_at),
            advice::because(lane.pause_reason.as_deref())
        ),
        LaneState::Unauthorized | LaneState::Unavailable => format!(
            "{} since {}, next probe {}{}",
            state.into_str(),
            at(lane.hold_since),
            at(lane.hold_until),
            advice::because(lane.hold_reason.as_deref())
        ),
    };
    write!(text, "; limit {} calls/s", lane.limit_per_s).ok();
    if let Some(by) = &lane.limit_set_by {
        write!(text, ", set by {by}").ok();
    }
    text
}

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

fn refused(app: &str, messages: u64) -> String {
    with_advice(
        &format!(
            "{messages}: workers do not send these messages, because a trigger or a constraint refuses their changes or takes seconds for each"
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

/// A value, and an indented line of advice.
pub(super) fn with_advice(found: &str, advice: &str) -> String {
    format!("{found}\n  {:<10} -> {advice}", "")
}

/// To the second.
pub(super) fn at(time: Option<DbTime>) -> String {
    time.map(OffsetDateTime::from)
        .and_then(|time| time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// To the second.
pub(super) fn coarse(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or(Duration::MAX);
    humantime::format_duration(duration).to_string()
}

fn fine(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds => coarse(seconds),
    }
}

fn pending(pending: &Pending) -> String {
    let counts = counts(pending.by_state());
    match pending.counted_ago_s {
        Some(ago_s) if ago_s >= 5.0 => format!("{counts}, as counted {} ago", coarse(ago_s)),
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
