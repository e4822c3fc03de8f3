//! The overview: each app with its lane, its backlog, its rates and its failures, and the workers of the fleet.

mod chart;
mod workers;

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::error::PageError;
use super::flash::Flash;
use super::format::{self, Tone};
use super::layout;
use crate::ops::OpsState;
use crate::ops::fleet::Overview;
use crate::outbox::{AppStatus, LaneState, MinuteStats, ObstacleKind};
use crate::pace::DbTime;
use crate::stats::Histogram;

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(flash): Query<Flash>,
) -> Result<Response, PageError> {
    let outbox = super::outbox(&state)?;
    let overview = state.fleet.overview(outbox).await;
    let overview = overview.map_err(PageError::Database)?;
    let live = live(&overview);
    Ok(layout::page("Overview", "/", true, &flash.markup(), &live))
}

fn live(overview: &Overview) -> Markup {
    let Overview {
        apps,
        workers,
        minutes,
        at,
    } = overview;
    html! {
        h1.unseen { "Overview" }
        @if apps.is_empty() {
            section.panel {
                h2 { "No app yet" }
                p { "An app appears here with its first message, or when a worker serves it (" code { "worker run" } ")." }
            }
        }
        @for app in apps { (section(app, minutes, *at)) }
        (workers::section(workers, *at))
        p.foot { "As of " (format::time(*at)) ", by the database's clock." }
    }
}

fn section(app: &AppStatus, minutes: &[MinuteStats], now: DbTime) -> Markup {
    let name = app.app.as_str();
    let heading = format!("app-{name}");
    let minutes: Vec<_> = minutes.iter().filter(|row| row.app == name).collect();
    let (tone, word, sentence) = lane_state(app);
    html! {
        section.panel aria-labelledby=(heading) {
            div.head {
                h2 id=(heading) { (name) }
                (format::badge(tone, &word))
                p.actions {
                    @for (action, text) in actions(app) {
                        a.button href=(format::link(action, &[("app", name)])) { (text) span.unseen { " " (name) } }
                    }
                }
            }
            p.why { (sentence) }
            @if let Some(lane) = &app.lane { (workers::of_lane(&lane.workers, now)) }
            (tiles(app))
            div.columns {
                (chart::calls(app, &minutes, now))
                (chart::backlog(app, &minutes, now))
            }
            div.columns {
                (pending(app))
                (outcomes(app))
                (finished(app))
            }
        }
    }
}

/// The lane's state as a badge, and a sentence about it.
fn lane_state(app: &AppStatus) -> (Tone, String, String) {
    let Some(lane) = &app.lane else {
        let sentence = "No worker has served this app yet. Its messages wait until one does.";
        return (Tone::Bad, "no worker".into(), sentence.into());
    };
    let state = lane.state();
    let word = format::words(state.as_str());
    let obstacles = format::sentence(&lane.obstacles_text().unwrap_or_default());
    match state {
        LaneState::Sending
            if app.pending.backlog() + app.pending.sending > 0 || app.rate_per_s > 0.0 =>
        {
            (
                Tone::Good,
                word,
                "The workers send messages as they become due.".into(),
            )
        }
        LaneState::Sending => (Tone::Good, "idle".into(), "No message is due.".into()),
        LaneState::Slowed => {
            let rate = format::rate(lane.rate_per_s.round());
            let sentence = format!(
                "A 429 has slowed the lane to {rate} calls/s. The rate rises again by itself."
            );
            (Tone::Warning, word, sentence)
        }
        LaneState::Waiting | LaneState::Paused => (Tone::Warning, word, obstacles),
        LaneState::NoWorker
        | LaneState::OtherEnvironment
        | LaneState::Unauthorized
        | LaneState::Unavailable => (Tone::Bad, word, obstacles),
    }
}

/// The paths and the names of the actions that the lane's state allows.
fn actions(app: &AppStatus) -> Vec<(&'static str, &'static str)> {
    let Some(lane) = &app.lane else {
        return Vec::new();
    };
    let is_paused = lane.is_held_by(ObstacleKind::Paused);
    let mut actions = Vec::new();
    if is_paused || lane.is_held_by(ObstacleKind::RetryAfter) {
        actions.push(("/actions/resume", "Resume…"));
    }
    if !is_paused {
        actions.push(("/actions/pause", "Pause…"));
    }
    actions.push(("/actions/limit", "Limit…"));
    actions
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
                dd {
                    strong { (format::number(backlog)) }
                    @match app.time_to_drain() {
                        _ if backlog == 0 => {},
                        Some(drain) => { " " span.dim.pair { "sent in " (format::duration(drain)) } },
                        None => span.dim { " not moving" },
                    }
                }
            }
            div {
                dt { "Oldest message" }
                dd { strong { (oldest.map_or_else(|| "–".into(), format::duration)) } }
            }
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
                strong class=(class) { (histogram.quantile(share).map_or_else(|| "–".into(), format::duration)) }
            }
            " "
        }
    }
}

/// A table of counts. Each row has a name, a count, and a link to the counted messages or failures.
fn counts<'a>(caption: &str, rows: impl IntoIterator<Item = (&'a str, u64, String)>) -> Markup {
    html! {
        table.counts {
            caption { (caption) }
            thead.unseen { tr { th scope="col" { "State" } th scope="col" { "Count" } } }
            tbody {
                @for (name, count, link) in rows {
                    tr class=[(count == 0).then_some("none")] {
                        th scope="row" { (name) }
                        td { a href=(link) { (format::number(count)) span.unseen { " " (name) } } }
                    }
                }
            }
        }
    }
}

fn pending(app: &AppStatus) -> Markup {
    let pending = &app.pending;
    let counted = match pending.counted_ago_s.and_then(seconds) {
        Some(ago) => format!("Pending, counted {} ago", format::duration(ago)),
        None => "Pending, not counted yet".into(),
    };
    let states = pending.by_state();
    counts(
        &counted,
        states.map(|(state, count)| (state, count, messages_in(&app.app, state))),
    )
}

fn outcomes(app: &AppStatus) -> Markup {
    let stats = &app.last_hour;
    let failed = [
        ("transient", "transient, tried again", stats.calls_transient),
        ("throttled", "throttled (429)", stats.calls_throttled),
        ("rejected", "rejected for good", stats.calls_rejected),
        (
            "unauthorized",
            "unauthorized (401, 403)",
            stats.calls_unauthorized,
        ),
        (
            "ambiguous",
            "ambiguous, no clear response",
            stats.calls_ambiguous,
        ),
    ];
    let failed = failed.map(|(outcome, name, calls)| {
        let query = [
            ("app", app.app.as_str()),
            ("span", "hour"),
            ("outcome", outcome),
        ];
        (name, calls, format::link("/failures", &query))
    });
    let accepted = format::link("/messages", &[("app", &app.app)]);
    let accepted = ("accepted", stats.calls_accepted(), accepted);
    counts("Calls, last hour", [accepted].into_iter().chain(failed))
}

fn finished(app: &AppStatus) -> Markup {
    let statuses = [
        ("message_sent", "sent"),
        ("message_delivered", "delivered"),
        ("message_offline", "offline"),
        ("failed", "failed"),
        ("expired", "expired"),
        ("unknown", "unknown"),
    ];
    let rows = statuses.map(|(status, name)| {
        let messages = app.finished_24h.get(status).copied().unwrap_or(0);
        (name, messages, messages_in(&app.app, status))
    });
    counts("Finished messages, last 24 h", rows)
}

fn messages_in(app: &str, state: &str) -> String {
    format::link("/messages", &[("app", app), ("state", state)])
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{LaneStatus, Pending};

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
        let slowed = LaneStatus {
            rate_per_s: 100.0,
            ..LaneStatus::sending()
        };
        let both = [ObstacleKind::Unauthorized, ObstacleKind::RetryAfter];
        for (lane, queued, word, reason, count) in [
            (None, 1, "no worker", "No worker has served", 0),
            (
                Some(LaneStatus::sending()),
                1,
                "sending",
                "as they become due",
                2,
            ),
            (
                Some(LaneStatus::sending()),
                0,
                "idle",
                "No message is due",
                2,
            ),
            (Some(slowed), 1, "slowed", "100 calls/s", 2),
            (
                Some(LaneStatus::sending().held_by(&[ObstacleKind::Paused])),
                1,
                "paused",
                "Paused.",
                2,
            ),
            (
                Some(LaneStatus::sending().held_by(&both)),
                1,
                "unauthorized",
                "and RetryAfter.",
                3,
            ),
        ] {
            let pending = Pending {
                queued,
                ..Pending::default()
            };
            let app = AppStatus {
                lane,
                pending,
                ..AppStatus::default()
            };
            let (_, shown, sentence) = lane_state(&app);
            assert_eq!(shown, word, "{sentence}");
            assert!(sentence.contains(reason), "{sentence}");
            assert_eq!(actions(&app).len(), count, "{word}");
        }
    }
}
