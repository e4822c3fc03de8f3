//! One message: what became of it, call by call, and what comes next.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::actions::Notice;
use super::frame::{Frame, Section};
use super::messages::receiver;
use super::show::{self, Tone};
use super::wrong::PageError;
use crate::ops::OpsState;
use crate::outbox::{CallLine, MessageView};

/// What the URL asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    payload: String,
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
    Query(notice): Query<Notice>,
) -> Result<Response, PageError> {
    let missing = || {
        PageError::Missing(
            "there is no such message; it may have been deleted, as WORKER_RETAIN asks for".into(),
        )
    };
    let id: i64 = id.parse().map_err(|_| missing())?;
    let with_payload = wish.payload == "1";
    let (message, calls) = super::outbox(&state)?
        .view_message(id, with_payload)
        .await?
        .ok_or_else(missing)?;
    let title = format!("Message {id}");
    let frame = Frame {
        title: &title,
        section: Section::Messages,
        refreshes: message.finished_at.is_none(),
    };
    let live = html! {
        div.head {
            h1 { (title) }
            (show::state(&message.state))
            (actions(&message))
        }
        section.panel aria-label="What comes next" { p { (next(&message)) } }
        div.columns {
            section.panel aria-labelledby="facts" { h2 #facts { "The message" } (facts(&message)) }
            section.panel aria-labelledby="timeline" { h2 #timeline { "What happened" } (timeline(&message, &calls)) }
        }
        section.panel aria-labelledby="payload-title" { h2 #payload-title { "Payload" } (payload(&message)) }
    };
    Ok(frame.page(&notice.markup(), &live))
}

fn actions(message: &MessageView) -> Markup {
    let link = |action: &str| {
        show::link(
            &format!("/actions/{action}"),
            &[("id", &message.id.to_string())],
        )
    };
    html! {
        p.actions {
            @if can_be_cancelled(message) { a.button href=(link("cancel")) { "Cancel it…" } }
            @if can_be_retried(message) { a.button href=(link("retry")) { "Send it again…" } }
        }
    }
}

pub(super) fn can_be_cancelled(message: &MessageView) -> bool {
    message.finished_at.is_none() && message.state != "sending"
}

pub(super) fn can_be_retried(message: &MessageView) -> bool {
    ["failed", "expired", "cancelled", "unknown"].contains(&message.state.as_str())
}

fn next(message: &MessageView) -> Markup {
    let due = html! { (show::time_and_distance(message.due_at, message.now)) };
    html! {
        @match message.state.as_str() {
            "sending" => {
                b { (message.claimed_by.as_deref().unwrap_or("A worker")) } " has it, for a call now. If that worker dies, another one takes it after "
                (due) "."
            },
            "scheduled" => { "Its first call comes at " (due) ", or a little later." },
            _ if message.finished_at.is_some() => { (ended(message)) },
            _ if message.is_claimed => "The worker that had it is gone: the next one that claims takes it, and counts a call.",
            _ if message.is_due => "It is due: its next call takes the next slot that its app has free.",
            _ => { "Call " (message.attempts + 1) " of at most " (message.max_attempts) " comes at " (due) ", or a little later." },
        }
        @if message.finished_at.is_none() {
            @if !message.has_lane { " No worker has served its app yet." }
            @if message.is_paused { " Its app is paused: nothing is sent until somebody resumes it." }
            @else if let Some(hold) = &message.hold { " Its app's lane is " (hold) ": one call at a time is tried." }
            @if let Some(expires_at) = message.expires_at { " It expires at " (show::time_and_distance(expires_at, message.now)) "." }
        }
    }
}

fn ended(message: &MessageView) -> &'static str {
    match message.state.as_str() {
        "message_sent" => "The API took it. Nothing more happens to it.",
        "message_delivered" => "The receiver has it. Nothing more happens to it.",
        "message_offline" => {
            "The receiver is offline and does not have it. Nothing more happens to it here."
        }
        "failed" => {
            "It has failed for good. Nothing more happens to it, unless somebody sends it again."
        }
        "expired" => {
            "Its time was over before it could be sent. Nothing more happens to it, unless somebody sends it again."
        }
        "cancelled" => {
            "Somebody has cancelled it. Nothing more happens to it, unless somebody sends it again."
        }
        _ => {
            "Nobody can know whether its last call had an effect, and it is not to be called twice. Look whether it arrived before you send it again."
        }
    }
}

fn facts(message: &MessageView) -> Markup {
    let to = message
        .destination
        .as_deref()
        .or(message.channel_name.as_deref())
        .unwrap_or_default();
    let time = |at| show::time_and_distance(at, message.now);
    html! {
        dl.facts {
            div { dt { "App" } dd { a href=(show::link("/messages", &[("app", &message.app)])) { (message.app) } } }
            div { dt { "From" } dd { (message.sender) } }
            div {
                dt { "To" }
                dd {
                    (receiver(message.destination.as_deref(), message.channel_name.as_deref()))
                    " " a.small href=(show::link("/messages", &[("to", to)])) { "all to it" }
                }
            }
            div { dt { "Inserted" } dd { (time(message.created_at)) } }
            @if let Some(sent_at) = message.sent_at { div { dt { "Last call" } dd { (time(sent_at)) } } }
            @if let Some(finished_at) = message.finished_at { div { dt { "Ended" } dd { (time(finished_at)) } } }
            @if let Some(expires_at) = message.expires_at { div { dt { "Expires" } dd { (time(expires_at)) } } }
            div { dt { "Calls" } dd { (message.attempts) " of at most " (message.max_attempts) } }
            @if let Some(status) = message.http_status { div { dt { "HTTP status" } dd { (status) } } }
            @if let Some(error) = &message.error { div { dt { "Error" } dd.text { (error) } } }
            @if let Some(request_id) = &message.request_id { div { dt { "The API's request id" } dd.text { (request_id) } } }
            @if let Some(worker) = &message.claimed_by { div { dt { "Worker" } dd.text { (worker) } } }
            @if message.wait_for_ack || message.at_most_once {
                div {
                    dt { "Asked for" }
                    dd {
                        @if message.wait_for_ack { "to wait for the receiver" }
                        @if message.wait_for_ack && message.at_most_once { ", " }
                        @if message.at_most_once { "at most one call that may have an effect" }
                    }
                }
            }
        }
    }
}

fn timeline(message: &MessageView, calls: &[CallLine]) -> Markup {
    html! {
        ol.timeline {
            li { p { b { "Inserted" } } p.dim { (show::time(message.created_at)) } }
            @for call in calls { (call_line(call)) }
            @if let Some(finished_at) = message.finished_at {
                li {
                    p { (show::state(&message.state)) @if let Some(status) = message.http_status { " " span.code { (status) } } }
                    p.dim { (show::time(finished_at)) ", " (show::duration((finished_at - message.created_at).unsigned_abs())) " after it was inserted" }
                }
            } @else {
                li { p { (show::state(&message.state)) } p.dim { "now" } }
            }
        }
    }
}

fn call_line(call: &CallLine) -> Markup {
    let tone = if call.outcome == "rejected" {
        Tone::Bad
    } else {
        Tone::Warning
    };
    let took = call
        .duration_ms
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
    html! {
        li {
            p {
                b { "Call " (call.attempt) } " " (show::badge(tone, &call.outcome))
                @if let Some(status) = call.http_status { " " span.code { (status) } }
            }
            @if let Some(error) = &call.error { p.text { (error) } }
            p.dim {
                (show::time(call.sent_at.unwrap_or(call.recorded_at)))
                @if let Some(took) = took { ", took " (show::duration(took)) }
                @if let Some(worker) = &call.claimed_by { ", by " (worker) }
            }
        }
    }
}

fn payload(message: &MessageView) -> Markup {
    let path = format!("/messages/{}", message.id);
    let bytes = show::count(message.payload_bytes.into());
    html! {
        @match &message.payload {
            Some(payload) => {
                pre #payload tabindex="0" aria-label="Payload" { (payload) }
                p { (bytes) " bytes. " a href=(path) { "Hide it" } }
            },
            None => p { (bytes) " bytes, not shown. " a href=(format!("{path}?payload=1")) { "Show the payload" } },
        }
    }
}
