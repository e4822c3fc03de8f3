//! `worker workers`

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::print_as;
use super::status::{at, coarse, with_advice};
use crate::advice;
use crate::outbox::{ServedApp, WorkerStatus};

/// Show the workers that are alive, their versions, and the workers that stepped aside
///
/// A worker is alive if it has reported within 30 seconds. A worker that shuts down leaves the list at once. A worker that
/// died stays in the list for about a day. The same in SQL: select * from signaling.fleet.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker workers
  worker workers --json | jq '.[] | select(.is_alive) | {name, version}'")]
pub(super) struct WorkersArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON: an array with an object for each worker
    #[arg(long)]
    json: bool,
}

const MAX_DEAD: usize = 10;

pub(super) async fn run(args: WorkersArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let workers = outbox.workers().await?;
    outbox.close().await;
    print_as(args.json, &workers, |workers| show_all(workers))
}

fn show_all(workers: &[WorkerStatus]) -> String {
    let (alive, dead): (Vec<&WorkerStatus>, Vec<_>) =
        workers.iter().partition(|worker| worker.is_alive);
    let mut text = summary(&alive);
    for worker in alive.iter().chain(dead.iter().take(MAX_DEAD)) {
        write!(text, "\n{}", show(worker)).ok();
    }
    if dead.len() > MAX_DEAD {
        let more = dead.len() - MAX_DEAD;
        writeln!(text, "\n{more} more died within the last day").ok();
    }
    text
}

fn summary(alive: &[&WorkerStatus]) -> String {
    let mut by_version = BTreeMap::<&str, Vec<&str>>::new();
    for worker in alive {
        let names = by_version.entry(&worker.version).or_default();
        names.push(&worker.name);
    }
    let are = if alive.len() == 1 {
        "1 worker is alive".into()
    } else {
        format!("{} workers are alive", alive.len())
    };
    let versions: Vec<_> = by_version
        .iter()
        .map(|(version, names)| format!("{version} ({})", names.join(", ")))
        .collect();
    match (versions.as_slice(), by_version.keys().next()) {
        ([], _) | (_, None) => format!("no worker is alive\n  -> {}\n", advice::NO_WORKER),
        ([_], Some(version)) => format!("{are}, of version {version}\n"),
        _ => format!(
            "{are}, of different versions: {}\n  -> if no upgrade is under way, replace the older workers\n",
            versions.join(" and ")
        ),
    }
}

fn show(worker: &WorkerStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<10} {value}").ok();
    let seen = coarse(worker.seen_ago_s);
    line(
        "state",
        if worker.is_alive {
            format!("alive, reported {seen} ago")
        } else {
            with_advice(
                &format!("dead: it last reported {seen} ago, and did not shut down"),
                "look for the cause in the worker's log and its host's log. Other workers take over its messages when their leases end",
            )
        },
    );
    line("version", worker.version.clone());
    if let Some(environment) = &worker.environment {
        line("belongs to", format!("the environment {environment}"));
    }
    line("host", worker.host.clone());
    line("started", at(Some(worker.started_at)));
    for app in &worker.apps {
        line("app", served(app));
    }
    format!("{}\n{text}", worker.name)
}

fn served(app: &ServedApp) -> String {
    let mut text = format!(
        "{}: {} accepted, {} failed",
        app.app, app.accepted, app.failed
    );
    if let Some(since) = app.stepped_aside_at {
        let reason = app.stepped_aside_reason.as_deref().unwrap_or_default();
        let since = at(Some(since));
        write!(text, "; has stepped aside since {since}: {reason}").ok();
        return with_advice(&text, advice::ASIDE);
    }
    if app.is_doubting {
        text += "; ";
        text += advice::DOUBTING;
    }
    text
}
