//! One message: its next step, its fields, its failed attempts and its payload.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{self, PageError};
use super::messages::recipient;
use super::{actions, format};
use crate::message_text;
use crate::ops::OpsState;
use crate::outbox::{CallDetail, MessageDetail, MessageError, MessageRow};
use crate::pace::DbTime;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    payload: String,
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, PageError> {
    let not_found = |text| PageError(StatusCode::NOT_FOUND, text);
    let number = id.parse();
    let number = number.map_err(|_| not_found(format!("there is no message {id}")))?;
    let found = super::outbox(&state)?.message(number, params.payload == "1");
    let detail = found.await.map_err(|error| match error {
        MessageError::Database(error) => error.into(),
        error => not_found(error.to_string()),
    })?;
    let message = &detail.message;
    let title = format!("Message {id}");
    let refreshes = message.finished_at.is_none();
    let live = html! {
        div.head {
            h1 { (title) }
            (format::state(&message.state))
            div.actions { (buttons(message)) }
        }
        section.panel aria-label="Next" { (next(&detail)) }
        div.columns {
            section.panel aria-labelledby="facts" { h2 #facts { "Fields" } (facts(message)) }
            section.panel aria-labelledby="calls" {
                h2 #calls { "Failed calls" }
                @if detail.calls.is_empty() { p.dim { "none" } }
                ol.timeline { @for call in &detail.calls { (call_entry(call)) } }
            }
        }
        section.panel aria-labelledby="payload-title" {
            h2 #payload-title { "Payload" }
            @if let Some(payload) = &detail.payload {
                pre #payload tabindex="0" aria-label="Payload" { (payload) }
                p { (format::number(payload.len())) " bytes." }
            } @else {
                p { "Not shown. " a href="?payload=1" { "Show the payload" } }
            }
        }
    };
    Ok(layout::page(
        &title,
        "/messages",
        refreshes,
        &html! {},
        &live,
    ))
}

fn buttons(message: &MessageRow) -> Markup {
    let id = message.id.to_string();
    let (name, target) = (format!("message {id}"), [("id", id.as_str())]);
    let cancel = html! {
        p { "No worker sends the message any more. Its final status is cancelled." }
        @if message.sent_at.is_some() { p { "An earlier call may have had an effect." } }
    };
    let retry = html! {
        p { "The message gets all its attempts back, and loses an expiry that has passed. A worker sends it in a free slot." }
        @if message.state == "unknown" {
            p { b { "The recipient may get the message twice," } " because its last call may have had an effect." }
        }
    };
    html! {
        @if message.finished_at.is_none() && message.state != "sending" {
            (actions::button("cancel", "Cancel", &name, &target, &cancel))
        }
        @if actions::RETRYABLE.contains(&message.state.as_str()) {
            (actions::button("retry", "Retry", &name, &target, &retry))
        }
    }
}

fn next(detail: &MessageDetail) -> Markup {
    html! {
        p { b { "Next: " } (format::sentence(&message_text::next_step(detail))) }
        @if let Some((call, advice)) = detail.last_failure().and_then(|call| Some((call, call.advice()?))) {
            p { b { "Why: " } "call " (call.attempt) " failed. " (format::sentence(&message_text::fault(call))) }
            p { b { "To do: " } (advice) "." }
        }
    }
}

fn facts(message: &MessageRow) -> Markup {
    let to = [&message.destination, &message.channel_name];
    let to = to.into_iter().flatten().next().map_or("", String::as_str);
    let recipient = recipient(
        message.destination.as_deref(),
        message.channel_name.as_deref(),
    );
    let link = |name, value, text: &str| html! { a href=(format::link("/messages", &[(name, value)])) { (text) } };
    let time = |at: Option<DbTime>| at.map(message_text::at);
    let flag = |is_set: bool| is_set.then(|| "true".to_owned());
    let attempts = format!("{} of at most {}", message.attempts, message.max_attempts);
    let http_status = message.http_status.map(|status| status.to_string());
    let fields = [
        ("From", Some(message.sender.clone())),
        ("Inserted", time(Some(message.created_at))),
        ("Last call", time(message.sent_at)),
        ("Finished", time(message.finished_at)),
        ("Expires", time(message.expires_at)),
        ("Charged calls", Some(attempts)),
        ("Uncharged calls", Some(message.uncharged.to_string())),
        ("HTTP status", http_status),
        ("Error", message.error.clone()),
        ("Request ID", message.request_id.clone()),
        ("Worker", message.claimed_by.clone()),
        ("wait_for_ack", flag(message.wait_for_ack)),
        ("at_most_once", flag(message.at_most_once)),
    ];
    html! {
        dl.facts {
            div { dt { "App" } dd { (link("app", &message.app, &message.app)) } }
            div { dt { "To" } dd { (recipient) " " (link("to", to, "all messages to it")) } }
            @for (name, value) in fields {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

fn call_entry(call: &CallDetail) -> Markup {
    let took = call.duration_ms.map(|ms| ms / 1_000.0);
    let took = took.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    html! {
        li {
            p { b { "Call " (call.attempt) } " " (format::state(&call.outcome)) (http_status(call.http_status)) }
            @if let Some(error) = &call.error { p.text { (error) } }
            p.dim { (message_text::fault(call)) }
            p.dim {
                (format::time(call.sent_at.unwrap_or(call.recorded_at)))
                @if let Some(took) = took { ", took " (format::duration(took)) }
                @if let Some(worker) = &call.claimed_by { ", by " (worker) }
            }
        }
    }
}

pub(super) fn http_status(status: Option<i32>) -> Markup {
    html! { @if let Some(status) = status { " " span.code { (status) } " " } }
}
