//! Is it going out, how fast, what fails: each app at a glance.

mod charts;
mod lane_view;
mod workers;

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::error::PageError;
use super::flash::Flash;
use super::format;
use super::layout::{Layout, Section};
use crate::ops::OpsState;
use crate::ops::fleet::Overview;
use crate::outbox::{AppStatus, MinuteStats};
use crate::pace::DbTime;
use crate::stats::{Histogram, Stats};
use lane_view::LaneView;

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(notice): Query<Flash>,
) -> Result<Response, PageError> {
    let outbox = super::outbox(&state)?;
    let overview = state.fleet.overview(outbox).await;
    let overview = overview.map_err(PageError::Database)?;
    let layout = Layout {
        title: "Overview",
        section: Section::Overview,
        refreshes: true,
    };
    Ok(layout.page(&notice.markup(), &live(&overview)))
}

/// The part of the page that the script refreshes.
fn live(
    Overview {
        apps,
        workers,
        minutes,
        at,
    }: &Overview,
) -> Markup {
    html! {
        h1.unseen { "Overview" }
        @if apps.is_empty() {
            section.panel {
                h2 { "Nothing yet" }
                p { "No app has a message or a worker so far. " code { "worker run" } " makes one known, and so does the first message." }
            }
        }
        @for app in apps {
            (section(app, minutes, *at))
        }
        (workers::section(workers, *at))
        p.foot { "As of " (format::time(*at)) ", by the database's clock." }
    }
}

fn section(app: &AppStatus, minutes: &[MinuteStats], now: DbTime) -> Markup {
    let name = app.app.as_str();
    let heading = format!("app-{name}");
    let lane = LaneView::of(app, now);
    let limit = app.lane.as_ref().map(|lane| lane.limit_per_s);
    html! {
        section.panel aria-labelledby=(heading) {
            div.head {
                h2 id=(heading) { (name) }
                (format::badge(lane.tone, lane.word))
                @if app.lane.is_some() {
                    p.actions {
                        @if lane.can_resume {
                            a.button href=(format::link("/actions/resume", &[("app", name)])) { "Resume…" span.unseen { " " (name) } }
                        }
                        @if lane.can_pause {
                            a.button href=(format::link("/actions/pause", &[("app", name)])) { "Pause…" span.unseen { " " (name) } }
                        }
                        a.button href=(format::link("/actions/limit", &[("app", name)])) { "Limit…" span.unseen { " of " (name) } }
                    }
                }
            }
            p.why { (lane.sentence) }
            @if let Some(lane) = &app.lane { (workers::of_lane(&lane.workers, now)) }
            (tiles(app))
            div.columns {
                (charts::calls(app, minutes, now, limit))
                (charts::backlog(app, minutes, now))
            }
            div.columns {
                (waiting(app))
                (outcomes(app))
                (finished(app))
            }
        }
    }
}

fn tiles(app: &AppStatus) -> Markup {
    let queue_wait = &app.last_hour.queue_wait;
    let drain = app.time_to_drain();
    let backlog = app.pending.backlog();
    html! {
        dl.tiles {
            div {
                dt { "Calls a second" }
                dd {
                    strong { (format::rate(app.rate_per_s)) }
                    @if let Some(lane) = &app.lane {
                        span.dim { " of " (format::rate(lane.limit_per_s)) @if lane.limit_set_by.is_some() { ", set by hand" } }
                    }
                }
            }
            div {
                dt { "Waiting" }
                dd {
                    strong { (format::number(backlog)) }
                    @match drain {
                        Some(_) if backlog == 0 => span.dim { @if app.pending.sending == 0 { " all is sent" } @else { " the last are being sent" } },
                        Some(drain) => { " " span.dim.pair { "gone in " (format::duration(drain)) } },
                        None if backlog > 0 => span.dim { " not moving" },
                        None => {},
                    }
                }
            }
            div {
                dt { "Oldest" }
                dd {
                    @match app.pending.oldest_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                        Some(age) => { strong { (format::duration(age)) } span.dim { " waits" } },
                        None => strong { "–" },
                    }
                }
            }
            div {
                dt { "Wait before the call, last hour" }
                dd { (percentiles(queue_wait)) }
            }
            div {
                dt { "Length of a call, last hour" }
                dd { (percentiles(&app.last_hour.call_time)) }
            }
        }
    }
}

fn percentiles(of: &Histogram) -> Markup {
    let small = |name: &str, share: f64| {
        html! { " " span.pair { span.dim { (name) " " } strong.small { (format::maybe_duration(of.quantile(share))) } } }
    };
    html! {
        span.pair { span.dim { "p50 " } strong { (format::maybe_duration(of.quantile(0.5))) } }
        (small("p95", 0.95))
        (small("p99", 0.99))
    }
}

fn rows(caption: &str, rows: &[(String, u64, String)]) -> Markup {
    html! {
        table.counts {
            caption { (caption) }
            thead.unseen { tr { th scope="col" { "What" } th scope="col" { "How many" } } }
            tbody {
                @for (name, count, link) in rows {
                    tr class=[(*count == 0).then_some("none")] {
                        th scope="row" { (name) }
                        td { a href=(link) { (format::number(*count)) span.unseen { " " (name) } } }
                    }
                }
            }
        }
    }
}

fn waiting(app: &AppStatus) -> Markup {
    let pending = &app.pending;
    let states = [
        ("queued", pending.queued),
        ("scheduled", pending.scheduled),
        ("sending", pending.sending),
        ("retrying", pending.retrying),
    ];
    let counted = pending
        .counted_ago_s
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map_or_else(
            || "not counted yet".into(),
            |ago| format!("counted {} ago", format::duration(ago)),
        );
    let counts: Vec<_> = states
        .map(|(state, count)| (state.to_owned(), count, messages_in(&app.app, state)))
        .into();
    rows(&format!("Waiting, {counted}"), &counts)
}

fn outcomes(app: &AppStatus) -> Markup {
    let Stats {
        calls_transient,
        calls_throttled,
        calls_rejected,
        calls_unauthorized,
        calls_ambiguous,
        ..
    } = app.last_hour;
    let failures = |outcome: &str, name: &str, calls: u64| {
        let query = [
            ("app", app.app.as_str()),
            ("span", "hour"),
            ("outcome", outcome),
        ];
        (name.to_owned(), calls, format::link("/failures", &query))
    };
    let well = (
        "well".to_owned(),
        app.last_hour.calls_well(),
        format::link("/messages", &[("app", &app.app)]),
    );
    let counts = [
        well,
        failures("transient", "failed, called again", calls_transient),
        failures("throttled", "throttled (429)", calls_throttled),
        failures("rejected", "rejected for good", calls_rejected),
        failures(
            "unauthorized",
            "unauthorized (401, 403)",
            calls_unauthorized,
        ),
        failures("ambiguous", "ambiguous: no clear answer", calls_ambiguous),
    ];
    rows("Calls, last hour", &counts)
}

fn finished(app: &AppStatus) -> Markup {
    let statuses = [
        "message_sent",
        "message_delivered",
        "message_offline",
        "failed",
        "expired",
        "unknown",
    ];
    let counts: Vec<_> = statuses
        .map(|status| {
            let messages = app.finished_24h.get(status).copied().unwrap_or(0);
            (
                format::words(status),
                messages,
                messages_in(&app.app, status),
            )
        })
        .into();
    rows("Messages that ended, last 24 h", &counts)
}

fn messages_in(app: &str, state: &str) -> String {
    format::link("/messages", &[("app", app), ("state", state)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_app_the_overview_says_how_one_appears() {
        let overview = Overview {
            apps: Vec::new(),
            workers: Vec::new(),
            minutes: Vec::new(),
            at: DbTime::from_micros(0),
        };
        let page = live(&overview).into_string();
        assert!(
            page.contains("Nothing yet") && page.contains("worker run"),
            "{page}"
        );
    }
}
