//! Pause, resume and limit an app.

use axum::Form;
use axum::extract::{Query, State};
use axum::response::{Redirect, Response};
use maud::html;
use serde::Deserialize;

use super::{BY, Question, back};
use crate::ops::OpsState;
use crate::ops::dashboard::error::PageError;
use crate::ops::dashboard::format;
use crate::outbox::{AppLane, LaneStatus, ObstacleKind};
use crate::sanitize;

/// The longest reason that a person gives, in characters.
const MAX_REASON_CHARS: usize = 500;
/// The highest limit that the schema takes, in calls a second.
const MAX_LIMIT: f64 = 1_000_000.0;

/// Which app, and what a form says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    app: String,
    reason: String,
    limit: String,
    configured: String,
}

/// How an app is doing that has a lane.
async fn find(state: &OpsState, app: &str) -> Result<(AppLane, LaneStatus), PageError> {
    let apps = crate::ops::dashboard::outbox(state)?.lanes().await?;
    let mut found = apps
        .into_iter()
        .find(|status| status.app == app)
        .ok_or_else(|| {
            PageError::Missing(format!(
                "there is no app “{}”",
                sanitize::text(app, sanitize::MAX_NAME_CHARS)
            ))
        })?;
    let lane = found.lane.take().ok_or_else(|| {
        PageError::Wrong(format!(
            "no worker has served {} yet, so there is nothing to pause or limit",
            found.app
        ))
    })?;
    Ok((found, lane))
}

pub(super) async fn ask_pause(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let (status, _) = find(&state, &params.app).await?;
    let app = &status.app;
    Ok(Question {
        title: &format!("Pause {app}?"),
        consequence: html! {
            p {
                "No call of " b { (app) } " starts from then on, on any host, until somebody resumes it. Calls in flight are finished. "
                (format::messages(status.pending.backlog())) " that are due wait then, and so do those that come; messages with an expiry may expire."
            }
        },
        action: "/actions/pause",
        fields: html! {
            label { "Why, for the others" input type="text" name="reason" maxlength=(MAX_REASON_CHARS) autocomplete="off" autofocus; }
        },
        hidden: &[("app", app)],
        button: &format!("Pause {app}"),
        back: "/",
    }
    .page())
}

pub(super) async fn pause(
    State(state): State<OpsState>,
    Form(params): Form<Params>,
) -> Result<Redirect, PageError> {
    let reason = sanitize::text(params.reason.trim(), MAX_REASON_CHARS);
    let reason = (!reason.is_empty()).then_some(reason);
    let outbox = crate::ops::dashboard::outbox(&state)?;
    let is_news = outbox.pause(&app(&params), reason.as_deref(), BY).await?;
    Ok(told(&state, is_news, "paused", "already-paused").await)
}

pub(super) async fn ask_resume(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let (status, lane) = find(&state, &params.app).await?;
    let app = &status.app;
    Ok(Question {
        title: &format!("Resume {app}?"),
        consequence: html! {
            p {
                b { (app) } " sends again at once, on all hosts, at " (format::rate(lane.limit_per_s)) " calls/s at most. "
                (format::messages(status.pending.backlog())) " are due."
            }
            @if let Some(until) = lane.retry_after_until.filter(|_| lane.is_held_by(ObstacleKind::RetryAfter)) {
                p { "The API has asked to wait until " (format::time(until)) ". Resuming ends that wait, and the API may answer 429 again." }
            }
            @if let Some(hold) = &lane.hold {
                p { "Its lane is " (hold) " as well: that ends when the API responds normally to a probe." }
            }
            @if let Some(reason) = &lane.pause_reason {
                p { "It was paused by " (lane.paused_by.as_deref().unwrap_or("somebody")) ": “" (reason) "”." }
            }
        },
        action: "/actions/resume",
        fields: html! {},
        hidden: &[("app", app)],
        button: &format!("Resume {app}"),
        back: "/",
    }
    .page())
}

pub(super) async fn resume(
    State(state): State<OpsState>,
    Form(params): Form<Params>,
) -> Result<Redirect, PageError> {
    crate::ops::dashboard::outbox(&state)?
        .resume(&app(&params))
        .await?;
    state.fleet.forget().await;
    Ok(back("/", "resumed", &[]))
}

pub(super) async fn ask_limit(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let (status, lane) = find(&state, &params.app).await?;
    let app = &status.app;
    Ok(Question {
        title: &format!("Another limit for {app}?"),
        consequence: html! {
            p {
                "It is " b { (format::rate(lane.limit_per_s)) " calls/s" } " now"
                @if let Some(by) = &lane.limit_set_by { ", set by " (by) }
                ". Another one holds at once, on all hosts, also for workers that start later, until it is set back. A limit above what the API allows makes it answer 429."
            }
        },
        action: "/actions/limit",
        fields: html! {
            label {
                "Calls a second"
                input type="number" name="limit" min="1" max=(MAX_LIMIT) step="any" value=(lane.limit_per_s) autofocus;
            }
            label.check {
                input type="checkbox" name="configured" value="1";
                " back to what the workers are configured with"
            }
        },
        hidden: &[("app", app)],
        button: "Set the limit",
        back: "/",
    }
    .page())
}

pub(super) async fn limit(
    State(state): State<OpsState>,
    Form(params): Form<Params>,
) -> Result<Redirect, PageError> {
    let calls_per_s = if params.configured == "1" {
        None
    } else {
        Some(parse_limit(&params.limit)?)
    };
    let outbox = crate::ops::dashboard::outbox(&state)?;
    let is_news = outbox.set_limit(&app(&params), calls_per_s, BY).await?;
    Ok(told(&state, is_news, "limited", "already-limited").await)
}

/// Back to the overview, which says what was done, or that it had been done before.
async fn told(state: &OpsState, is_news: bool, news: &str, no_news: &str) -> Redirect {
    state.fleet.forget().await;
    back("/", if is_news { news } else { no_news }, &[])
}

fn parse_limit(text: &str) -> Result<f64, PageError> {
    text.trim()
        .parse()
        .ok()
        .filter(|limit| (1.0..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| {
            PageError::Wrong("a limit is a number of calls a second from 1 to 1,000,000".into())
        })
}

/// The app that a form names. The database says whether there is one.
fn app(params: &Params) -> String {
    sanitize::text(&params.app, sanitize::MAX_NAME_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_of_calls_is_a_limit() {
        assert!(parse_limit(" 200 ").is_ok_and(|limit| (limit - 200.0).abs() < f64::EPSILON));
        for text in ["", "0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}
