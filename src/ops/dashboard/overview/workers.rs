//! The workers of the fleet and of one app.

use maud::{Markup, html};

use crate::advice;
use crate::ops::dashboard::format;
use crate::outbox::{LaneWorkers, ServedApp, WorkerStatus};
use crate::pace::DbTime;

/// Postgres returns live workers first.
const MAX_ROWS: usize = 50;

/// The workers that serve one app.
pub(super) fn of_lane(workers: &LaneWorkers, now: DbTime) -> Markup {
    html! {
        @if workers.alive > 0 {
            p.why.dim {
                @if workers.alive == 1 { "1 worker is alive" } @else { (workers.alive) " workers are alive" }
                @if workers.versions.len() > 1 { ", of the versions " (workers.versions.join(" and ")) }
                "."
            }
        }
        @for worker in &workers.aside {
            p.why {
                (format::badge("warning", "aside")) " " b { (worker.name) } " has stepped aside since "
                (format::time_and_distance(worker.since, now)) ": “" (worker.reason) "”. To do: " (advice::ASIDE) "."
            }
        }
    }
}

/// All workers.
pub(super) fn section(workers: &[WorkerStatus], now: DbTime) -> Markup {
    let columns = [
        ("name", "Worker"),
        ("", "State"),
        ("", "Version"),
        ("name wide", "Host"),
        ("wide", "Started"),
        ("text", "Apps, since the start"),
    ];
    let rows = html! {
        @for worker in workers.iter().take(MAX_ROWS) {
            tr {
                td.name { (worker.name) }
                td {
                    @if worker.is_alive { (format::badge("good", "alive")) }
                    @else { (format::badge("bad", "dead")) span.dim { " last seen " (format::when(worker.seen_at, now)) } }
                }
                td { (worker.version) }
                td.name.wide { (worker.host) }
                td.wide { (format::when(worker.started_at, now)) }
                td.text { @for app in &worker.apps { p { (served(app, now)) } } }
            }
        }
    };
    html! {
        @if !workers.is_empty() {
            h2 { "Workers" }
            (format::list("Workers", &columns, &rows))
        }
    }
}

fn served(app: &ServedApp, now: DbTime) -> Markup {
    html! {
        (app.app) ": " (format::number(app.accepted)) " accepted, " (format::number(app.failed)) " failed"
        @if let Some(since) = app.stepped_aside_at { "; stepped aside " (format::when(since, now)) }
        @else if app.is_doubting { "; " (advice::DOUBTING) }
    }
}
