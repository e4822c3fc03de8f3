//! The workers of the fleet.

use maud::{Markup, html};

use crate::advice;
use crate::ops::dashboard::format;
use crate::outbox::{ServedApp, WorkerStatus};
use crate::pace::DbTime;

pub(super) fn section(workers: &[WorkerStatus], now: DbTime) -> Markup {
    let columns = [
        ("name", "Worker"),
        ("", "State"),
        ("", "Version"),
        ("text", "Apps, since the start"),
    ];
    let rows = html! {
        @for worker in workers {
            tr {
                td.name { (worker.name) }
                td {
                    @if worker.is_alive { (format::badge("good", "alive")) }
                    @else { (format::badge("bad", "dead")) span.dim { " last seen " (format::when(worker.seen_at, now)) } }
                }
                td { (worker.version) }
                td.text { @for app in &worker.apps { p { (served(app)) } } }
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

fn served(app: &ServedApp) -> Markup {
    html! {
        (app.app) ": " (format::number(app.accepted)) " accepted, " (format::number(app.failed)) " failed"
        @if let Some(since) = app.stepped_aside_at {
            "; " (format::badge("warning", "aside")) " has stepped aside since " (format::time(since))
            ": “" (app.stepped_aside_reason.as_deref().unwrap_or_default()) "”. To do: " (advice::ASIDE) "."
        }
        @else if app.is_doubting { "; " (advice::DOUBTING) }
    }
}
