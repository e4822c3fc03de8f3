//! The operator's actions. A GET shows a form that says what will happen. The form's POST to the same URL acts, and
//! redirects to a page with a notice.

use axum::extract::{Form, Path, Query, State};
use axum::response::{Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::OpsState;
use super::error::PageError;
use super::failures::Group;
use super::message::{RETRYABLE, can_cancel, can_retry, find, http_status};
use super::{format, layout, outbox};
use crate::outbox::{AdminError, AppLane, LaneStatus, MAX_RETRIED, ObstacleKind, RetryFilter};
use crate::sanitize;

/// Written to the lane as the operator's name.
const BY: &str = "dashboard";
const MAX_REASON_CHARS: usize = 500;
/// The schema's limit.
const MAX_CALLS_PER_S: f64 = 1_000_000.0;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    Pause,
    Resume,
    Limit,
    Cancel,
    Retry,
    RetryGroup,
}

/// The object of an action: an app, a message, or a failure group.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Target {
    id: i64,
    #[serde(flatten)]
    group: Group,
}

impl Target {
    /// Postgres refuses an app without a lane.
    fn app(&self) -> String {
        sanitize::text(&self.group.app, sanitize::MAX_NAME_CHARS)
    }
}

/// The fields that the operator fills in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    reason: String,
    limit: String,
    configured: String,
}

struct Question {
    /// As in "Pause default".
    action: String,
    consequence: Markup,
    fields: Markup,
    /// The path of the page that leads here.
    back: String,
}

pub(super) async fn ask(
    State(state): State<OpsState>,
    Path(action): Path<Action>,
    Query(target): Query<Target>,
) -> Result<Response, PageError> {
    let question = match action {
        Action::Pause => ask_pause(&state, &target).await,
        Action::Resume => ask_resume(&state, &target).await,
        Action::Limit => ask_limit(&state, &target).await,
        Action::Cancel => ask_cancel(&state, target.id).await,
        Action::Retry => ask_retry(&state, target.id).await,
        Action::RetryGroup => ask_retry_group(&state, &target.group).await,
    }?;
    let title = format!("{}?", question.action);
    let content = html! {
        section.panel.question aria-labelledby="question" {
            h1 #question { (title) }
            (question.consequence)
            form method="post" {
                (question.fields)
                div.buttons {
                    button.primary type="submit" { (question.action) }
                    a.button href=(question.back) { "Do nothing" }
                }
            }
        }
    };
    Ok(layout::page(&title, "", false, &content, &html! {}))
}

pub(super) async fn act(
    State(state): State<OpsState>,
    Path(action): Path<Action>,
    Query(target): Query<Target>,
    Form(fields): Form<Fields>,
) -> Result<Redirect, PageError> {
    let outbox = outbox(&state)?;
    let path = match action {
        Action::Pause => {
            let reason = sanitize::text(fields.reason.trim(), MAX_REASON_CHARS);
            let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
            let is_new = outbox.pause(&target.app(), reason, BY).await?;
            if is_new {
                "/?done=paused"
            } else {
                "/?done=already-paused"
            }
            .to_owned()
        }
        Action::Resume => {
            outbox.resume(&target.app()).await?;
            "/?done=resumed".to_owned()
        }
        Action::Limit => {
            let calls_per_s = match fields.configured.as_str() {
                "1" => None,
                _ => Some(parse_limit(&fields.limit)?),
            };
            let is_new = outbox.set_limit(&target.app(), calls_per_s, BY).await?;
            if is_new {
                "/?done=limited"
            } else {
                "/?done=already-limited"
            }
            .to_owned()
        }
        Action::Cancel => {
            let is_cancelled = outbox.cancel(target.id).await?;
            let notice = if is_cancelled {
                "cancelled"
            } else {
                "not-cancelled"
            };
            format!("/messages/{}?done={notice}", target.id)
        }
        Action::Retry => {
            let filter = RetryFilter {
                statuses: RETRYABLE.map(str::to_owned).into(),
                ..RetryFilter::default()
            };
            let retried = outbox.retry_listed(&[target.id], &filter).await?;
            let messages: i64 = retried.iter().map(|retried| retried.messages).sum();
            format!("/messages/{}?done=retried&n={messages}", target.id)
        }
        Action::RetryGroup => {
            let (key, span) = (target.group.key(), target.group.span);
            let ids = outbox.failed_messages(&key, span.length()).await;
            let ids = ids.map_err(AdminError::Database)?;
            let filter = RetryFilter {
                app: Some(key.app),
                statuses: vec!["failed".into()],
                http_statuses: key.http_status.into_iter().collect(),
                ..RetryFilter::default()
            };
            let retried = outbox.retry_listed(&ids, &filter).await?;
            let messages: i64 = retried.iter().map(|retried| retried.messages).sum();
            format!("/failures?done=retried&n={messages}&span={}", span.text())
        }
    };
    // The next page must show the change.
    state.fleet.forget().await;
    Ok(Redirect::to(&path))
}

async fn find_lane(state: &OpsState, target: &Target) -> Result<(AppLane, LaneStatus), PageError> {
    let name = target.app();
    let apps = outbox(state)?.lanes().await?;
    let Some(mut found) = apps.into_iter().find(|found| found.app == name) else {
        return Err(PageError::NotFound(format!("there is no app “{name}”")));
    };
    let lane = found.lane.take().ok_or_else(|| {
        PageError::BadRequest(format!(
            "no worker has served {name} yet, so it has no lane"
        ))
    })?;
    Ok((found, lane))
}

async fn ask_pause(state: &OpsState, target: &Target) -> Result<Question, PageError> {
    let (AppLane { app, pending, .. }, _) = find_lane(state, target).await?;
    Ok(Question {
        action: format!("Pause {app}"),
        consequence: html! {
            p {
                "No worker on any host starts a call of " b { (app) } " until an operator resumes the app. Calls in flight are finished. "
                "The backlog (" (format::messages(pending.backlog())) ") and new messages wait. Messages with an expiry may expire."
            }
        },
        fields: html! {
            label { "Reason, for other operators" input type="text" name="reason" maxlength=(MAX_REASON_CHARS) autocomplete="off" autofocus; }
        },
        back: "/".into(),
    })
}

async fn ask_resume(state: &OpsState, target: &Target) -> Result<Question, PageError> {
    let (AppLane { app, pending, .. }, lane) = find_lane(state, target).await?;
    let has_retry_after = lane.is_held_by(ObstacleKind::RetryAfter);
    Ok(Question {
        action: format!("Resume {app}"),
        consequence: html! {
            p {
                "The workers on all hosts send messages of " b { (app) } " again, at " (format::rate(lane.limit_per_s)) " calls/s at most. "
                "The backlog is " (format::messages(pending.backlog())) "."
            }
            @if let Some(obstacles) = lane.obstacles_text() { p { "Now: " (obstacles) "." } }
            @if has_retry_after { p { "Resuming ends the wait that the API has asked for. The API may answer 429 again." } }
            @if lane.hold.is_some() { p { "Resuming does not end the hold. A probe that the API accepts ends it." } }
        },
        fields: html! {},
        back: "/".into(),
    })
}

async fn ask_limit(state: &OpsState, target: &Target) -> Result<Question, PageError> {
    let (AppLane { app, .. }, lane) = find_lane(state, target).await?;
    Ok(Question {
        action: format!("Set the limit of {app}"),
        consequence: html! {
            p {
                "The limit is " b { (format::rate(lane.limit_per_s)) " calls/s" } " now"
                @if let Some(by) = &lane.limit_set_by { ", set by " (by) }
                ". A new limit holds at once and on all hosts, until an operator sets the configured one back. The API answers 429 to calls above its own limit."
            }
        },
        fields: html! {
            label {
                "Calls per second"
                input type="number" name="limit" min="1" max=(MAX_CALLS_PER_S) step="any" value=(lane.limit_per_s) autofocus;
            }
            label.check {
                input type="checkbox" name="configured" value="1";
                " back to the configured limit"
            }
        },
        back: "/".into(),
    })
}

async fn ask_cancel(state: &OpsState, id: i64) -> Result<Question, PageError> {
    let message = find(state, id, false).await?.message;
    if !can_cancel(&message) {
        let state = format::words(&message.state);
        let error = format!("message {id} is {state}, so an operator can't cancel it");
        return Err(PageError::BadRequest(error));
    }
    Ok(Question {
        action: format!("Cancel message {id}"),
        consequence: html! {
            p { "No worker sends the message any more. Its final status is cancelled." }
            @if message.sent_at.is_some() { p { "An earlier call may have had an effect." } }
        },
        fields: html! {},
        back: format!("/messages/{id}"),
    })
}

async fn ask_retry(state: &OpsState, id: i64) -> Result<Question, PageError> {
    let message = find(state, id, false).await?.message;
    if !can_retry(&message) {
        return Err(PageError::BadRequest(format!(
            "message {id} is {}: an operator can send only failed, expired, cancelled and unknown messages again",
            format::words(&message.state)
        )));
    }
    Ok(Question {
        action: format!("Send message {id} again"),
        consequence: html! {
            p { "The message gets all its attempts back, and loses an expiry that has passed. A worker sends it in a free slot." }
            @if message.state == "unknown" {
                p { b { "The recipient may get the message twice," } " because its last call may have had an effect." }
            }
        },
        fields: html! {},
        back: format!("/messages/{id}"),
    })
}

async fn ask_retry_group(state: &OpsState, group: &Group) -> Result<Question, PageError> {
    let (key, span) = (group.key(), group.span);
    let ids = outbox(state)?.failed_messages(&key, span.length()).await?;
    // The number may change before the operator confirms.
    let about = if ids.len() == 1 { "" } else { "about " };
    let messages = format::messages(ids.len() as u64);
    Ok(Question {
        action: format!("Send {about}{messages} again"),
        consequence: html! {
            p {
                "These messages of " b { (key.app) } " failed within " (span.words()) " with" (http_status(key.http_status))
                @match &key.error {
                    Some(error) => { " “" (error) "”." },
                    None => " no error text.",
                }
            }
            @if ids.len() >= MAX_RETRIED { p { "These are the newest messages. More may be left afterwards." } }
            p {
                "Each message gets all its attempts back, and loses an expiry that has passed. "
                "Retries take a fifth of the app's slots while first attempts are due."
            }
        },
        fields: html! {},
        back: "/failures".into(),
    })
}

fn parse_limit(text: &str) -> Result<f64, PageError> {
    let limit = text.trim().parse().ok();
    let limit = limit.filter(|limit| (1.0..=MAX_CALLS_PER_S).contains(limit));
    let error = "a limit is a number of calls per second from 1 to 1,000,000";
    limit.ok_or_else(|| PageError::BadRequest(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_calls_within_bounds() {
        assert!(parse_limit(" 200 ").is_ok_and(|limit| (limit - 200.0).abs() < f64::EPSILON));
        for text in ["", "0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}
