//! The overview: each app with its lane, its backlog, its rates and its failures, and the workers of the fleet.

mod chart;

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, PageError};
use super::messages::MAX_TEXT_CHARS;
use super::{actions, format};
use crate::advice;
use crate::ops::OpsState;
use crate::outbox::{
    AppStatus, LaneState, LaneStatus, MinuteStats, Outbox, ServedApp, WorkerStatus,
};
use crate::pace::DbTime;
use crate::stats::Histogram;

/// The charts show an hour, and the current minute is not over.
const CHARTS_SPAN: Duration = Duration::from_mins(61);

pub(super) async fn show(State(state): State<OpsState>) -> Result<Response, PageError> {
    let outbox = super::outbox(&state)?;
    let live = state.overview.get_or(query(outbox)).await?;
    Ok(layout::page("Overview", "/", true, &html! {}, &live))
}

async fn query(outbox: &Outbox) -> Result<Markup, PageError> {
    let apps = outbox.status().await?;
    let workers = outbox.workers().await?;
    let minutes = outbox.minute_stats(CHARTS_SPAN).await?;
    let now = outbox.viewed_at().await?;
    Ok(live(&apps, &workers, &minutes, now))
}

fn live(
    apps: &[AppStatus],
    workers: &[WorkerStatus],
    minutes: &[MinuteStats],
    now: DbTime,
) -> Markup {
    html! {
        h1.unseen { "Overview" }
        @if apps.is_empty() {
            section.panel {
                h2 { "No app yet" }
                p { "An app appears here with its first message, or when a worker serves it (" code { "worker run" } ")." }
            }
        }
        @for app in apps { (section(app, minutes, now)) }
        @if !workers.is_empty() { h2 { "Workers" } (worker_list(workers, now)) }
        p.foot { "As of " (format::time(now)) ", by the database's clock." }
    }
}

fn section(app: &AppStatus, minutes: &[MinuteStats], now: DbTime) -> Markup {
    let name = app.app.as_str();
    let heading = format!("app-{name}");
    let minutes: Vec<_> = minutes.iter().filter(|row| row.app == name).collect();
    let lane = app.lane.as_ref();
    let state = lane.map_or(LaneState::NoWorker, LaneStatus::state);
    html! {
        section.panel aria-labelledby=(heading) {
            div.head {
                h2 id=(heading) { (name) }
                (format::state(state.into_str()))
                @if let Some(lane) = lane { div.actions { (buttons(app, lane)) } }
            }
            @if lane.is_none() { p.why { "No worker has served this app yet. Its messages wait until one does." } }
            @if state == LaneState::Throttled { p.why { "A 429 has throttled the lane. The rate rises again by itself." } }
            @if let Some(obstacles) = lane.and_then(LaneStatus::obstacles_text) { p.why { (format::sentence(&obstacles)) } }
            (tiles(app))
            div.columns { (chart::both(app, &minutes, now)) }
            div.columns { (counts(app)) }
        }
    }
}

fn buttons(AppStatus { app, pending, .. }: &AppStatus, lane: &LaneStatus) -> Markup {
    let button = |action, verb, consequence: &Markup| {
        actions::button(action, verb, app, &[("app", app)], consequence)
    };
    let is_paused = lane.is_held_by(LaneState::Paused);
    let has_retry_after = lane.is_held_by(LaneState::Waiting);
    let backlog = format::number(pending.backlog());
    let limit = format::rate(lane.limit_per_s);
    let resume = html! {
        p { "The workers on all hosts send messages again, at " (limit) " calls/s at most. The backlog is " (backlog) "." }
        @if has_retry_after { p { "Resuming ends the wait that the API has asked for. The API may answer 429 again." } }
    };
    let pause = html! {
        p {
            "No worker on any host starts a call until an operator resumes the app. Workers complete calls in flight. "
            "The backlog (" (backlog) ") and new messages wait. Messages with an expiry may expire."
        }
        label { "Reason, for other operators" input type="text" name="reason" maxlength=(MAX_TEXT_CHARS) autocomplete="off" autofocus; }
    };
    let set_limit = html! {
        p {
            "The limit is " b { (limit) " calls/s" } " now"
            @if let Some(by) = &lane.limit_set_by { ", set by " (by) }
            ". A new limit applies at once on all hosts. The API answers 429 to calls above its own limit."
        }
        label {
            "Calls per second. Without a number, the configured limit applies again: " (format::rate(lane.configured_per_s))
            input type="number" name="limit" min="1" max="1000000" step="any" value=(lane.limit_per_s) autofocus;
        }
    };
    html! {
        @if is_paused || has_retry_after { (button("resume", "Resume", &resume)) }
        @if !is_paused { (button("pause", "Pause", &pause)) }
        (button("limit", "Limit", &set_limit))
    }
}

fn tiles(app: &AppStatus) -> Markup {
    let backlog = app.pending.backlog();
    let oldest = app.pending.oldest_s.and_then(seconds);
    html! {
        dl.tiles {
            div {
                dt { "Calls per second" }
                dd {
                    strong { (format::rate(app.rate_per_s)) }
                    @if let Some(lane) = &app.lane {
                        span.dim { " of " (format::rate(lane.limit_per_s)) @if lane.limit_set_by.is_some() { ", set by hand" } }
                    }
                }
            }
            div {
                dt { "Backlog" }
                dd { strong { (format::number(backlog)) } }
            }
            div { dt { "Oldest message" } dd { strong { (or_dash(oldest)) } } }
            div { dt { "Queue wait, last hour" } dd { (percentiles(&app.last_hour.queue_wait)) } }
            div { dt { "Call duration, last hour" } dd { (percentiles(&app.last_hour.call_time)) } }
        }
    }
}

fn percentiles(histogram: &Histogram) -> Markup {
    html! {
        @for (name, class, share) in [("p50 ", "", 0.5), ("p95 ", "small", 0.95), ("p99 ", "small", 0.99)] {
            span.pair {
                span.dim { (name) }
                strong class=(class) { (or_dash(histogram.quantile(share))) }
            }
            " "
        }
    }
}

fn or_dash(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "–".into(), format::duration)
}

/// Tables of counts. Each count is a link to the counted messages or failures.
fn counts(app: &AppStatus) -> Markup {
    let counted = match app.pending.counted_ago_s.and_then(seconds) {
        Some(ago) => format!("Pending, counted {} ago", format::duration(ago)),
        None => "Pending, not counted yet".into(),
    };
    let pending = app.pending.by_state().to_vec();
    let hour = &app.last_hour;
    let all = format::number(hour.calls());
    let calls = format!("Failed of {all} calls, last hour");
    let failed = vec![
        ("transient", hour.calls_transient),
        ("throttled", hour.calls_throttled),
        ("rejected", hour.calls_rejected),
        ("unauthorized", hour.calls_unauthorized),
        ("ambiguous", hour.calls_ambiguous),
    ];
    let day = "Finished messages, last 24 h".to_owned();
    let finished = app.finished_24h.iter();
    let finished = finished.map(|(status, count)| (status.as_str(), *count));
    let tables = [
        (counted, "/messages", "state", pending),
        (calls, "/failures", "outcome", failed),
        (day, "/messages", "state", finished.collect()),
    ];
    html! {
        @for (caption, path, field, rows) in tables {
            table.counts {
                caption { (caption) }
                thead.unseen { tr { th { "State" } th { "Count" } } }
                tbody {
                    @for (name, count) in rows {
                        tr class=[(count == 0).then_some("none")] {
                            th scope="row" { (format::words(name)) }
                            td {
                                a href=(format::link(path, &[("app", &app.app), (field, name)])) {
                                    (format::number(count)) span.unseen { " " (format::words(name)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn worker_list(workers: &[WorkerStatus], now: DbTime) -> Markup {
    let columns = html! {
        th.name { "Worker" } th { "State" } th { "Version" } th.text { "Apps, since the start" }
    };
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
    format::list("Workers", &columns, &rows)
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

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_app_the_overview_says_how_one_appears() {
        let page = live(&[], &[], &[], DbTime::from_micros(0)).into_string();
        assert!(
            page.contains("No app yet") && page.contains("worker run"),
            "{page}"
        );
    }

    #[test]
    fn a_lane_has_a_badge_a_sentence_and_the_actions_of_its_state() {
        use LaneState::{Paused, Unauthorized, Waiting};
        let throttled = LaneStatus {
            rate_per_s: 100.0,
            ..LaneStatus::sending()
        };
        let held = |obstacles: &[LaneState]| Some(LaneStatus::sending().held_by(obstacles));
        let both = held(&[Unauthorized, Waiting]);
        for (lane, badge, sentence, actions) in [
            (None, "no worker", "No worker has served", &[][..]),
            (
                held(&[]),
                "sending",
                "Calls per second",
                &["pause", "limit"],
            ),
            (
                Some(throttled),
                "throttled",
                "A 429 has throttled",
                &["pause", "limit"],
            ),
            (held(&[Paused]), "paused", "Paused.", &["resume", "limit"]),
            (
                both,
                "unauthorized",
                "and Waiting.",
                &["resume", "pause", "limit"],
            ),
        ] {
            let app = AppStatus {
                lane,
                ..AppStatus::default()
            };
            let page = section(&app, &[], DbTime::from_micros(0)).into_string();
            assert!(page.contains(&format!("\">{badge}</span>")), "{page}");
            assert!(page.contains(sentence), "{page}");
            for action in ["resume", "pause", "limit"] {
                let is_shown = page.contains(&format!("/actions/{action}\""));
                assert_eq!(is_shown, actions.contains(&action), "{badge}: {action}");
            }
        }
    }
}
