//! `worker status`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clap::Args;

use super::args::DatabaseArgs;
use crate::outbox::AppStatus;

/// Show how each app is doing: what waits, for how long, how fast it goes out, and what became of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker status
  worker status --json | jq '.[] | {app, oldest_due_s}'")]
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
        format!("{:.1} calls/s over the last 10 s", app.rate_per_s),
    );
    line("pending", counts(&app.pending));
    if let Some(seconds) = app.oldest_due_s {
        let age = Duration::from_secs_f64(seconds.max(0.0).floor());
        line(
            "oldest",
            format!("{} since it was inserted", humantime::format_duration(age)),
        );
    }
    line("finished", counts(&app.finished));
    format!("{}\n{text}", app.app)
}

fn lane(app: &AppStatus) -> String {
    match &app.lane {
        None => "none: no worker has served this app yet".into(),
        Some(lane) => match (&lane.hold, &lane.hold_reason) {
            (Some(hold), reason) => {
                format!("{hold}: {}", reason.as_deref().unwrap_or("no reason given"))
            }
            (None, _) => format!("sending, limit {} calls/s", lane.limit_per_s),
        },
    }
}

fn counts(by_state: &BTreeMap<String, i64>) -> String {
    if by_state.is_empty() {
        return "none".into();
    }
    by_state
        .iter()
        .map(|(state, rows)| format!("{rows} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}
