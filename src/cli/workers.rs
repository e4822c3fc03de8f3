//! `worker workers`

use std::fmt::Write;

use super::args::ReadArgs;
use super::print::{advice, block};
use crate::advice as texts;
use crate::outbox::{Outbox, WorkerStatus};
use crate::time_text::duration;

const DEAD: &str = "look for the cause in the worker's log and its host's log. Other workers take over its messages when their leases end";

pub(super) async fn run(args: ReadArgs) -> anyhow::Result<()> {
    let workers = async |outbox: &Outbox| outbox.workers().await;
    args.show(workers, |workers| show_all(workers)).await
}

fn show_all(workers: &[WorkerStatus]) -> String {
    let alive = workers.iter().filter(|worker| worker.is_alive).count();
    let mut text = format!("workers alive: {alive}\n");
    if alive == 0 {
        writeln!(text, "  -> {}", texts::NO_WORKER).ok();
    }
    for worker in workers {
        text = text + "\n" + &show(worker);
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
    lines.push(("started", worker.started_at.to_string()));
    for app in &worker.apps {
        let (name, accepted, failed) = (&app.app, app.accepted, app.failed);
        let counters = format!("{name}: {accepted} accepted, {failed} failed");
        if let Some(since) = app.stepped_aside_at {
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
