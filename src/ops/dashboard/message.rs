//! One message: what became of it, call by call, and what comes next.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::error::PageError;
use super::flash::Flash;
use super::format::{self, Tone};
use super::layout::{Layout, Section};
use super::messages::receiver;
use crate::advice::fault_name;
use crate::ops::OpsState;
use crate::outbox::{CallDetail, LaneDetail, MessageDetail, MessageError, MessageRow, NextStep};
use crate::outcome::Fault;

/// What the URL asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    payload: String,
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    Query(notice): Query<Flash>,
) -> Result<Response, PageError> {
    let id: i64 = id
        .parse()
        .map_err(|_| PageError::Missing(format!("there is no message {id}")))?;
    let with_payload = params.payload == "1";
    let detail = find(&state, id, with_payload).await?;
    let message = &detail.message;
    let title = format!("Message {id}");
    let layout = Layout {
        title: &title,
        section: Section::Messages,
        refreshes: message.finished_at.is_none(),
    };
    let live = html! {
        div.head {
            h1 { (title) }
            (format::state(&message.state))
            (actions(message))
        }
        section.panel aria-label="What comes next" { p { (next(&detail)) } (why(&detail)) }
        div.columns {
            section.panel aria-labelledby="facts" { h2 #facts { "The message" } (facts(message)) }
            section.panel aria-labelledby="timeline" { h2 #timeline { "What happened" } (timeline(&detail)) }
        }
        section.panel aria-labelledby="payload-title" { h2 #payload-title { "Payload" } (payload(&detail)) }
    };
    Ok(layout.page(&notice.markup(), &live))
}

fn actions(message: &MessageRow) -> Markup {
    let link = |action: &str| {
        format::link(
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

pub(super) fn can_be_cancelled(message: &MessageRow) -> bool {
    message.finished_at.is_none() && message.state != "sending"
}

pub(super) fn can_be_retried(message: &MessageRow) -> bool {
    ["failed", "expired", "cancelled", "unknown"].contains(&message.state.as_str())
}

fn next(detail: &MessageDetail) -> Markup {
    let message = &detail.message;
    let at = |time| format::time_and_distance(time, message.at);
    html! {
        @match detail.next {
            NextStep::Nothing => { (ended(message)) },
            NextStep::Sending { lease_ends_at } => {
                b { (message.claimed_by.as_deref().unwrap_or("A worker")) } " has it, for a call now. If that worker dies, another one takes it after "
                (at(lease_ends_at)) "."
            },
            NextStep::Lost { .. } => "The worker that had it is gone: the next one that claims takes it, and counts a call.",
            NextStep::Refused { until } => {
                "A trigger or a constraint of the database refuses to change it, so it is not sent. It is tried again at " (at(until))
                ". " code { "worker check" } " names the trigger or the constraint: correct it, then resume the app."
            },
            NextStep::Due => "It is due: its next call takes the next slot that its app has free.",
            NextStep::Waits { until } => { "Call " (message.attempts.saturating_add(message.uncharged).saturating_add(1)) " comes at " (at(until)) ", or a little later." },
        }
        @if detail.next != NextStep::Nothing {
            @match &detail.lane {
                LaneDetail::NoRight => {},
                LaneDetail::None => " No worker has served its app yet.",
                LaneDetail::Lane(lane) => {
                    @if let Some(obstacles) = lane.obstacles_text() { " But " (obstacles) "." }
                },
            }
            @if let Some(expires_at) = message.expires_at { " It expires at " (at(expires_at)) "." }
        }
    }
}

/// Whose fault the last failure was, and what to do.
fn why(detail: &MessageDetail) -> Markup {
    html! {
        @if let Some(call) = detail.last_failure() {
            @if let Some(advice) = call.advice() {
                p { "Call " (call.attempt) " failed. " (blame(call)) "." }
                p { "To do: " (advice) "." }
            }
        }
    }
}

/// Whose fault a failed call was, on what evidence, and whether it is charged.
fn blame(call: &CallDetail) -> Markup {
    html! {
        @if let Some(fault) = call.fault() {
            "Fault: " (fault_name(fault))
            @if fault == Fault::Worker { @if let Some(worker) = &call.claimed_by { " " (worker) } }
            @if let Some(evidence) = &call.evidence { " (" (evidence) ")" }
            "; "
        }
        @if call.charged { "charged" } @else { "not charged" }
    }
}

fn ended(message: &MessageRow) -> &'static str {
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

fn facts(message: &MessageRow) -> Markup {
    let to = message
        .destination
        .as_deref()
        .or(message.channel_name.as_deref())
        .unwrap_or_default();
    let time = |at| format::time_and_distance(at, message.at);
    html! {
        dl.facts {
            div { dt { "App" } dd { a href=(format::link("/messages", &[("app", &message.app)])) { (message.app) } } }
            div { dt { "From" } dd { (message.sender) } }
            div {
                dt { "To" }
                dd {
                    (receiver(message.destination.as_deref(), message.channel_name.as_deref()))
                    " " a.small href=(format::link("/messages", &[("to", to)])) { "all to it" }
                }
            }
            div { dt { "Inserted" } dd { (time(message.created_at)) } }
            @if let Some(sent_at) = message.sent_at { div { dt { "Last call" } dd { (time(sent_at)) } } }
            @if let Some(finished_at) = message.finished_at { div { dt { "Ended" } dd { (time(finished_at)) } } }
            @if let Some(expires_at) = message.expires_at { div { dt { "Expires" } dd { (time(expires_at)) } } }
            div {
                dt { "Calls" }
                dd {
                    (message.attempts) " of at most " (message.max_attempts)
                    @if message.uncharged > 0 { ", and " (message.uncharged) " not charged" }
                }
            }
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

fn timeline(detail: &MessageDetail) -> Markup {
    let message = &detail.message;
    html! {
        ol.timeline {
            li { p { b { "Inserted" } } p.dim { (format::time(message.created_at)) } }
            @if detail.earlier_calls > 0 { li { p.dim { (format::count(detail.earlier_calls)) " earlier calls are not shown" } } }
            @for call in &detail.calls { (call_line(call)) }
            @if let Some(finished_at) = message.finished_at {
                li {
                    p { (format::state(&message.state)) @if let Some(status) = message.http_status { " " span.code { (status) } } }
                    p.dim { (format::time(finished_at)) ", " (format::duration(finished_at.since(message.created_at))) " after it was inserted" }
                }
            } @else {
                li { p { (format::state(&message.state)) } p.dim { "now" } }
            }
        }
    }
}

fn call_line(call: &CallDetail) -> Markup {
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
                b { "Call " (call.attempt) } " " (format::badge(tone, &call.outcome))
                @if let Some(status) = call.http_status { " " span.code { (status) } }
            }
            @if let Some(error) = &call.error { p.text { (error) } }
            p.dim { (blame(call)) }
            p.dim {
                (format::time(call.sent_at.unwrap_or(call.recorded_at)))
                @if let Some(took) = took { ", took " (format::duration(took)) }
                @if let Some(worker) = &call.claimed_by { ", by " (worker) }
            }
        }
    }
}

fn payload(detail: &MessageDetail) -> Markup {
    let path = format!("/messages/{}", detail.message.id);
    html! {
        @match (&detail.payload.text, detail.payload.bytes) {
            (Some(payload), bytes) => {
                pre #payload tabindex="0" aria-label="Payload" { (payload) }
                p { (format::count(bytes.unwrap_or_default())) " bytes. " a href=(path) { "Hide it" } }
            },
            (None, Some(bytes)) => p { (format::count(bytes)) " bytes, not shown. " a href=(format!("{path}?payload=1")) { "Show the payload" } },
            (None, None) => p { "This worker's role may not read it." },
        }
    }
}

/// The message, or why it can't be shown.
pub(super) async fn find(
    state: &OpsState,
    id: i64,
    with_payload: bool,
) -> Result<MessageDetail, PageError> {
    let found = super::outbox(state)?.message(id, with_payload).await;
    found.map_err(|error| match error {
        MessageError::Database(error) => error.into(),
        error => PageError::Missing(error.to_string()),
    })
}
