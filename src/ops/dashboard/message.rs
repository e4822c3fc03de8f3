//! One message: its next step, its fields, its history and its payload.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, PageError};
use super::messages::{Form, recipient};
use super::{actions, format};
use crate::message_text::{self, timeline};
use crate::ops::OpsState;
use crate::outbox::{CallDetail, MessageDetail, MessageRow};

pub(super) async fn show(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    Query(form): Query<Form>,
) -> Result<Response, PageError> {
    let not_found = || PageError(StatusCode::NOT_FOUND, format!("there is no message {id}"));
    let number = id.parse().map_err(|_| not_found())?;
    let found = super::outbox(&state)?.message(number, form.contains_key("payload"));
    let detail = found.await?.ok_or_else(not_found)?;
    let message = &detail.message;
    let title = format!("Message {id}");
    let refreshes = message.finished_at.is_none();
    let live = html! {
        div.head {
            h1 { (title) }
            (format::state(&message.state))
            div.actions { (buttons(&detail)) }
        }
        section.panel aria-label="Next" { (next(&detail)) }
        div.columns {
            section.panel aria-labelledby="facts" { h2 #facts { "Fields" } (facts(message)) }
            section.panel aria-labelledby="history" {
                h2 #history { "History" }
                ol.timeline {
                    @for (when, lines) in timeline(&detail) {
                        li { p.dim { (format::time(when)) } @for line in lines { p.text { (line) } } }
                    }
                }
            }
        }
        section.panel aria-labelledby="payload-title" {
            h2 #payload-title { "Payload" }
            @if let Some(payload) = &detail.payload {
                pre #payload tabindex="0" aria-label="Payload" { (payload) }
                p { (format::number(payload.len())) " bytes." }
            } @else if !message.may_read_payload {
                p { "Not shown, because the worker's role may not read payloads." }
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

fn buttons(detail: &MessageDetail) -> Markup {
    let message = &detail.message;
    let mut calls = detail.calls.iter();
    let may_have_arrived = message.state == "unknown" || calls.any(CallDetail::may_have_arrived);
    let id = message.id.to_string();
    let (name, target) = (format!("message {id}"), [("id", id.as_str())]);
    let cancel = html! {
        p { "No worker sends the message any more. Its final status is cancelled." }
        @if message.sent_at.is_some() { p { "An earlier call may have had an effect." } }
    };
    let retry = html! {
        p { "The message gets all its attempts back, and loses an expiry that has passed. A worker sends it in a free slot." }
        @if may_have_arrived {
            p { b { "The recipient may get the message twice," } " because an earlier call may have had an effect." }
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
        @if let Some((call, advice)) = detail.last_failure() {
            p { b { "Why: " } "call " (call.attempt) " failed. " (format::sentence(&message_text::fault(call))) }
            p { b { "To do: " } (advice) "." }
        }
    }
}

fn facts(message: &MessageRow) -> Markup {
    let (destination, channel) = (&message.destination, &message.channel_name);
    let to = destination.as_ref().or(channel.as_ref());
    let to = format::link("/messages", &[("to", to.map_or("", String::as_str))]);
    html! {
        dl.facts {
            div { dt { "App" } dd { a href=(format::link("/messages", &[("app", &message.app)])) { (message.app) } } }
            div { dt { "From" } dd { (message.sender) } }
            div {
                dt { "To" }
                dd { (recipient(destination.as_deref(), channel.as_deref())) " " a href=(to) { "all messages to it" } }
            }
            @if let Some(at) = message.expires_at { div { dt { "Expires" } dd { (format::time(at)) } } }
            div { dt { "Attempts" } dd { (message.attempts) " of " (message.max_attempts) " charged, " (message.uncharged) " not charged" } }
            @if message.wait_for_ack { div { dt { "wait_for_ack" } dd { "true" } } }
            @if message.at_most_once { div { dt { "at_most_once" } dd { "true" } } }
        }
    }
}

pub(super) fn http_status(status: Option<i32>) -> Markup {
    html! { @if let Some(status) = status { " " span.code { (status) } " " } }
}
