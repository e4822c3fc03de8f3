//! The overview: each app with its lane, its backlog, its rates and its failures, and the workers of the fleet.

mod chart;
mod workers;

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, Flash, PageError};
use super::messages::MAX_TEXT_CHARS;
use super::{actions, format};
use crate::ops::OpsState;
use crate::ops::fleet::Overview;
use crate::outbox::{AppStatus, LaneState, LaneStatus, MinuteStats};
use crate::pace::DbTime;
use crate::stats::Histogram;

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(flash): Query<Flash>,
) -> Result<Response, PageError> {
    let outbox = super::outbox(&state)?;
    let overview = state.fleet.overview(outbox).await;
    let overview = overview.map_err(|text| PageError(StatusCode::SERVICE_UNAVAILABLE, text))?;
    let live = live(&overview);
    Ok(layout::page("Overview", "/", true, &flash.markup(), &live))
}

fn live(overview: &Overview) -> Markup {
    html! {
        h1.unseen { "Overview" }
        @if overview.apps.is_empty() {
            section.panel {
                h2 { "No app yet" }
                p { "An app appears here with its first message, or when a worker serves it (" code { "worker run" } ")." }
            }
        }
        @for app in &overview.apps { (section(app, &overview.minutes, overview.at)) }
        (workers::section(&overview.workers, overview.at))
        p.foot { "As of " (format::time(overview.at)) ", by the database's clock." }
    }
}

fn section(app: &AppStatus, minutes: &[MinuteStats], now: DbTime) -> Markup {
    let name = app.app.as_str();
    let heading = format!("app-{name}");
    let minutes: Vec<_> = minutes.iter().filter(|row| row.app == name).collect();
    html! {
        section.panel aria-labelledby=(heading) {
            @if let Some(lane) = &app.lane {
                div.head {
                    h2 id=(heading) { (name) }
                    (state(lane.state()))
                    div.actions { (buttons(app, lane)) }
                }
                @if lane.state() == LaneState::Slowed { p.why { "A 429 has slowed the lane. The rate rises again by itself." } }
                @if let Some(obstacles) = lane.obstacles_text() { p.why { (format::sentence(&obstacles)) } }
            } @else {
                div.head { h2 id=(heading) { (name) } (state(LaneState::NoWorker)) }
                p.why { "No worker has served this app yet. Its messages wait until one does." }
            }
            (tiles(app))
            div.columns { (chart::both(app, &minutes, now)) }
            div.columns { (counts(app)) }
        }
    }
}

fn state(state: LaneState) -> Markup {
    let tone = match state {
        LaneState::Sending => "good",
        LaneState::Slowed | LaneState::Waiting | LaneState::Paused => "warning",
        LaneState::NoWorker
        | LaneState::OtherEnvironment
        | LaneState::Unauthorized
        | LaneState::Unavailable => "bad",
    };
    format::badge(tone, &format::words(state.into_str()))
}

fn buttons(AppStatus { app, pending, .. }: &AppStatus, lane: &LaneStatus) -> Markup {
    let button = |action, verb, consequence: &Markup| {
        actions::button(action, verb, app, &[("app", app)], consequence)
    };
    let is_paused = lane.is_held_by(LaneState::Paused);
    let has_retry_after = lane.is_held_by(LaneState::Waiting);
    let backlog = format::messages(pending.backlog());
    let limit = format::rate(lane.limit_per_s);
    let resume = html! {
        p { "The workers on all hosts send messages again, at " (limit) " calls/s at most. The backlog is " (backlog) "." }
        @if has_retry_after { p { "Resuming ends the wait that the API has asked for. The API may answer 429 again." } }
    };
    let pause = html! {
        p {
            "No worker on any host starts a call until an operator resumes the app. Calls in flight are finished. "
            "The backlog (" (backlog) ") and new messages wait. Messages with an expiry may expire."
        }
        label { "Reason, for other operators" input type="text" name="reason" maxlength=(MAX_TEXT_CHARS) autocomplete="off" autofocus; }
    };
    let set_limit = html! {
        p {
            "The limit is " b { (limit) " calls/s" } " now"
            @if let Some(by) = &lane.limit_set_by { ", set by " (by) }
            ". A new limit holds at once and on all hosts. The API answers 429 to calls above its own limit."
        }
        label {
            "Calls per second. Without a number, the configured limit holds again: " (format::rate(lane.configured_per_s))
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
    let rate = html! {
        strong { (format::rate(app.rate_per_s)) }
        @if let Some(lane) = &app.lane {
            span.dim { " of " (format::rate(lane.limit_per_s)) @if lane.limit_set_by.is_some() { ", set by hand" } }
        }
    };
    let drain = html! {
        strong { (format::number(backlog)) }
        @match app.time_to_drain() {
            _ if backlog == 0 => {},
            Some(drain) => { " " span.dim.pair { "sent in " (format::duration(drain)) } },
            None => span.dim { " not moving" },
        }
    };
    let oldest = html! { strong { (oldest.map_or_else(|| "–".into(), format::duration)) } };
    let queue_wait = percentiles(&app.last_hour.queue_wait);
    let call_time = percentiles(&app.last_hour.call_time);
    html! {
        dl.tiles {
            div { dt { "Calls per second" } dd { (rate) } }
            div { dt { "Backlog" } dd { (drain) } }
            div { dt { "Oldest message" } dd { (oldest) } }
            div { dt { "Queue wait, last hour" } dd { (queue_wait) } }
            div { dt { "Call duration, last hour" } dd { (call_time) } }
        }
    }
}

fn percentiles(histogram: &Histogram) -> Markup {
    html! {
        @for (name, class, share) in [("p50 ", "", 0.5), ("p95 ", "small", 0.95), ("p99 ", "small", 0.99)] {
            span.pair {
                span.dim { (name) }
                strong class=(class) { (histogram.quantile(share).map_or_else(|| "–".into(), format::duration)) }
            }
            " "
        }
    }
}

/// Tables of counts. Each count is a link to the counted messages or failures.
fn counts(app: &AppStatus) -> Markup {
    let (name, hour) = (app.app.as_str(), &app.last_hour);
    let messages = |state| format::link("/messages", &[("app", name), ("state", state)]);
    let failures = |outcome| format::link("/failures", &[("app", name), ("outcome", outcome)]);
    let failed = [
        ("transient", hour.calls_transient),
        ("throttled", hour.calls_throttled),
        ("rejected", hour.calls_rejected),
        ("unauthorized", hour.calls_unauthorized),
        ("ambiguous", hour.calls_ambiguous),
    ];
    let failed = failed.map(|(outcome, calls)| (outcome, calls, failures(outcome)));
    let mut calls = vec![("accepted", hour.calls_accepted(), messages(""))];
    calls.extend(failed);
    let pending = app.pending.by_state();
    let pending = pending.map(|(state, count)| (state, count, messages(state)));
    let finished = app.finished_24h.iter();
    let finished = finished.map(|(status, count)| (status.as_str(), *count, messages(status)));
    let counted = match app.pending.counted_ago_s.and_then(seconds) {
        Some(ago) => format!("Pending, counted {} ago", format::duration(ago)),
        None => "Pending, not counted yet".into(),
    };
    let tables = [
        (counted.as_str(), pending.to_vec()),
        ("Calls, last hour", calls),
        ("Finished messages, last 24 h", finished.collect()),
    ];
    html! {
        @for (caption, rows) in tables {
            table.counts {
                caption { (caption) }
                thead.unseen { tr { th scope="col" { "State" } th scope="col" { "Count" } } }
                tbody {
                    @for (name, count, link) in rows {
                        tr class=[(count == 0).then_some("none")] {
                            th scope="row" { (format::words(name)) }
                            td { a href=(link) { (format::number(count)) span.unseen { " " (format::words(name)) } } }
                        }
                    }
                }
            }
        }
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
        let overview = Overview {
            apps: Vec::new(),
            workers: Vec::new(),
            minutes: Vec::new(),
            at: DbTime::from_micros(0),
        };
        let page = live(&overview).into_string();
        assert!(
            page.contains("No app yet") && page.contains("worker run"),
            "{page}"
        );
    }

    #[test]
    fn a_lane_has_a_badge_a_sentence_and_the_actions_of_its_state() {
        use LaneState::{Paused, Unauthorized, Waiting};
        let slowed = LaneStatus {
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
                Some(slowed),
                "slowed",
                "A 429 has slowed",
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
