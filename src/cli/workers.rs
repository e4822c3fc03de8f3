//! `worker workers`

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::{advice, block, print_as};
use crate::advice as texts;
use crate::outbox::WorkerStatus;
use crate::time_text::{duration, to_the_second};

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
const DEAD: &str = "look for the cause in the worker's log and its host's log. Other workers take over its messages when their leases end";

pub(super) async fn run(args: WorkersArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect_migrated().await?;
    let workers = outbox.workers().await?;
    outbox.close().await;
    print_as(args.json, &workers, |workers| show_all(workers))
}

fn show_all(workers: &[WorkerStatus]) -> String {
    let (alive, dead): (Vec<&WorkerStatus>, Vec<_>) =
        workers.iter().partition(|worker| worker.is_alive);
    let mut text = format!("workers alive: {}\n", alive.len());
    if alive.is_empty() {
        writeln!(text, "  -> {}", texts::NO_WORKER).ok();
    }
    for worker in alive.iter().chain(dead.iter().take(MAX_DEAD)) {
        text = text + "\n" + &show(worker);
    }
    if dead.len() > MAX_DEAD {
        let more = dead.len() - MAX_DEAD;
        writeln!(text, "\n{more} more died within the last day").ok();
    }
    text
}

fn show(worker: &WorkerStatus) -> String {
    let seen = duration(worker.seen_ago_s);
    let mut lines = Vec::new();
    if worker.is_alive {
        lines.push(("state", format!("alive, reported {seen} ago")));
    } else {
        let state = format!("dead: it last reported {seen} ago, and did not shut down");
        lines.extend([("state", state), advice(DEAD)]);
    }
    lines.push(("version", worker.version.clone()));
    if let Some(environment) = &worker.environment {
        lines.push(("belongs to", format!("the environment {environment}")));
    }
    lines.push(("host", worker.host.clone()));
    lines.push(("started", to_the_second(worker.started_at)));
    for app in &worker.apps {
        let (name, accepted, failed) = (&app.app, app.accepted, app.failed);
        let counters = format!("{name}: {accepted} accepted, {failed} failed");
        if let Some(since) = app.stepped_aside_at {
            let since = to_the_second(since);
            let reason = app.stepped_aside_reason.as_deref().unwrap_or_default();
            let aside = format!("{counters}; has stepped aside since {since}: {reason}");
            lines.extend([("app", aside), advice(texts::ASIDE)]);
        } else if app.is_doubting {
            lines.push(("app", format!("{counters}; {}", texts::DOUBTING)));
        } else {
            lines.push(("app", counters));
        }
    }
    block(&worker.name, &lines)
}
