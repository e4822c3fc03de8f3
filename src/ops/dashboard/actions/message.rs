//! Cancel a message, send it again, or all that failed in the same way.

use axum::Form;
use axum::extract::{Query, State};
use axum::response::{Redirect, Response};
use maud::html;
use serde::Deserialize;

use super::{Question, back};
use crate::ops::OpsState;
use crate::ops::dashboard::error::PageError;
use crate::ops::dashboard::failures::Span;
use crate::ops::dashboard::format;
use crate::ops::dashboard::message::{can_be_cancelled, can_be_retried, find};
use crate::ops::dashboard::messages::wanted;
use crate::outbox::{AdminError, FailureKey, MAX_RETRIED, RetryFilter};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    id: i64,
}

impl Params {
    fn path(&self) -> String {
        format!("/messages/{}", self.id)
    }
}

pub(super) async fn ask_cancel(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let message = find(&state, params.id, false).await?.message;
    if !can_be_cancelled(&message) {
        return Err(PageError::Wrong(format!(
            "message {} can't be cancelled: it is {}",
            message.id,
            format::words(&message.state)
        )));
    }
    Ok(Question {
        title: &format!("Cancel message {}?", message.id),
        consequence: html! {
            p { "It is not called any more, and ends as cancelled." }
            @if message.attempts > 0 { p { "It was called before: that call may have arrived." } }
        },
        action: "/actions/cancel",
        fields: html! {},
        hidden: &[("id", &message.id.to_string())],
        button: &format!("Cancel message {}", message.id),
        back: &params.path(),
    }
    .page())
}

pub(super) async fn cancel(
    State(state): State<OpsState>,
    Form(params): Form<Params>,
) -> Result<Redirect, PageError> {
    let done = crate::ops::dashboard::outbox(&state)?
        .cancel(params.id)
        .await?;
    let done = if done { "cancelled" } else { "not-cancelled" };
    Ok(back(&params.path(), done, &[]))
}

pub(super) async fn ask_retry(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let message = find(&state, params.id, false).await?.message;
    if !can_be_retried(&message) {
        return Err(PageError::Wrong(format!(
            "message {} is {}: only one that failed, expired, was cancelled or is unknown can be sent again",
            message.id,
            format::words(&message.state)
        )));
    }
    Ok(Question {
        title: &format!("Send message {} again?", message.id),
        consequence: html! {
            p { "It waits for a slot with all its attempts, and without an expiry that is over." }
            @if message.state == "unknown" {
                p { b { "It may arrive twice:" } " nobody knows whether its last call had an effect." }
            }
        },
        action: "/actions/retry",
        fields: html! {},
        hidden: &[("id", &message.id.to_string())],
        button: &format!("Send message {} again", message.id),
        back: &params.path(),
    }
    .page())
}

pub(super) async fn retry(
    State(state): State<OpsState>,
    Form(params): Form<Params>,
) -> Result<Redirect, PageError> {
    let filter = RetryFilter {
        statuses: ["failed", "expired", "cancelled", "unknown"]
            .map(str::to_owned)
            .into(),
        ..RetryFilter::default()
    };
    let retried = crate::ops::dashboard::outbox(&state)?
        .retry_listed(&[params.id], &filter)
        .await?;
    let messages: i64 = retried.iter().map(|retried| retried.messages).sum();
    Ok(back(
        &params.path(),
        "retried",
        &[("n", &messages.to_string())],
    ))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupWish {
    app: String,
    outcome: String,
    http_status: String,
    error: String,
    no_error: String,
    span: String,
}

impl GroupWish {
    fn key(&self) -> Result<FailureKey, PageError> {
        let http_status = match self.http_status.as_str() {
            "" => None,
            status => Some(
                status
                    .parse()
                    .map_err(|_| PageError::Wrong("an HTTP status is a number".into()))?,
            ),
        };
        let has_error = self.no_error != "1";
        // A text with NUL is none that Postgres knows.
        let text = |text: &str| text.replace('\0', "");
        Ok(FailureKey {
            app: text(&self.app),
            outcome: text(&self.outcome),
            http_status,
            error: has_error.then(|| text(&self.error)),
        })
    }
}

pub(super) async fn ask_retry_group(
    State(state): State<OpsState>,
    Query(params): Query<GroupWish>,
) -> Result<Response, PageError> {
    let key = params.key()?;
    let span = Span::read(&params.span);
    let ids = crate::ops::dashboard::outbox(&state)?
        .failed_messages(&key, span.length())
        .await?;
    // Others may fail, or be sent again, before the answer to the question.
    let about = if ids.len() == 1 { "" } else { "about " };
    let messages = format!("{about}{}", format::messages(ids.len() as u64));
    let is_cut = ids.len() >= MAX_RETRIED;
    let it = if ids.len() == 1 {
        "It waits"
    } else {
        "They wait"
    };
    Ok(Question {
        title: &format!("Send {messages} again?"),
        consequence: html! {
            p {
                "Of " b { (key.app) } ", those that have failed for good within " (span.words()) " with "
                @if let Some(status) = key.http_status { span.code { (status) } " " }
                @match wanted(key.error.as_deref().unwrap_or_default()) {
                    Some(error) => { "“" (error) "”." },
                    None => "no error text.",
                }
            }
            @if is_cut { p { "These are the newest; there may be more, for another time." } }
            p { (it) " for slots with all attempts, and without an expiry that is over; repeated calls have a fifth of the app's slots while others wait." }
        },
        action: "/actions/retry-group",
        fields: html! {},
        hidden: &[
            ("app", &key.app),
            ("outcome", &key.outcome),
            ("http_status", &params.http_status),
            ("error", key.error.as_deref().unwrap_or_default()),
            ("no_error", &params.no_error),
            ("span", span.text()),
        ],
        button: &format!("Send {messages} again"),
        back: "/failures",
    }
    .page())
}

pub(super) async fn retry_group(
    State(state): State<OpsState>,
    Form(params): Form<GroupWish>,
) -> Result<Redirect, PageError> {
    let key = params.key()?;
    let outbox = crate::ops::dashboard::outbox(&state)?;
    let ids = outbox
        .failed_messages(&key, Span::read(&params.span).length())
        .await
        .map_err(AdminError::Database)?;
    let filter = RetryFilter {
        app: Some(key.app),
        statuses: vec!["failed".into()],
        http_statuses: key.http_status.into_iter().collect(),
        ..RetryFilter::default()
    };
    let retried = outbox.retry_listed(&ids, &filter).await?;
    let messages: i64 = retried.iter().map(|retried| retried.messages).sum();
    let mut more = vec![("n", messages.to_string()), ("span", params.span)];
    let lane = match retried.first() {
        Some(retried) => outbox.lane(&retried.app).await?,
        None => None,
    };
    // The page of failures does not show the lane.
    if lane.is_some_and(|lane| !lane.obstacles.is_empty()) {
        more.push(("held", "1".into()));
    }
    let more: Vec<(&str, &str)> = more
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Ok(back("/failures", "retried", &more))
}
