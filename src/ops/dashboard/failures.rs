//! What fails, and why: calls that did not end well, in groups.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::error::PageError;
use super::flash::Flash;
use super::format::{self, Tone};
use super::layout::{Layout, Section};
use super::messages::wanted;
use crate::ops::OpsState;
use crate::outbox::{FailureGroup, Failures, MAX_CALLS_LOOKED_AT};

/// What the URL asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    app: String,
    span: String,
    outcome: String,
}

/// How far back to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
}

impl Span {
    /// As a URL has it; an hour if it says nothing else.
    pub(super) fn read(text: &str) -> Self {
        if text == "day" { Self::Day } else { Self::Hour }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::from_hours(1),
            Self::Day => Duration::from_hours(24),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Hour => "the last hour",
            Self::Day => "the last 24 hours",
        }
    }
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
    Query(notice): Query<Flash>,
) -> Result<Response, PageError> {
    let app = wanted(&params.app);
    let outcome = wanted(&params.outcome);
    let span = Span::read(&params.span);
    let failures = super::outbox(&state)?
        .failures(app.as_deref(), outcome.as_deref(), span.length())
        .await?;
    let layout = Layout {
        title: "Failures",
        section: Section::Failures,
        refreshes: true,
    };
    let live = html! {
        div.head {
            h1 { "Failures" }
            (spans(&params, span))
        }
        p.why {
            "Calls of " (span.words()) " that did not end their message well"
            @if let Some(app) = &app { ", of " b { (app) } }
            @if let Some(outcome) = &outcome { ", that were " b { (format::words(outcome)) } }
            "."
            @if app.is_some() || outcome.is_some() { " " a href=(format::link("/failures", &[("span", span.text())])) { "Show all" } "." }
        }
        @if let Some(since) = failures.only_since {
            p.panel {
                "Many calls failed: of all apps, the newest " (format::count(MAX_CALLS_LOOKED_AT)) " were looked at, those since "
                (format::time_and_distance(since, failures.now)) "."
            }
        }
        @if failures.groups.is_empty() {
            p.panel {
                @if failures.only_since.is_some() { "None of these is like that." }
                @else { (format::badge(Tone::Good, "none")) " Nothing failed." }
            }
        } @else {
            (table(&failures, span))
        }
    };
    Ok(layout.page(&notice.markup(), &live))
}

fn spans(params: &Params, now: Span) -> Markup {
    html! {
        nav.pages aria-label="How far back" {
            @for (span, text) in [(Span::Hour, "Last hour"), (Span::Day, "Last 24 hours")] {
                a.button href=(format::link("/failures", &[("app", &params.app), ("span", span.text()), ("outcome", &params.outcome)]))
                    aria-current=[(span == now).then_some("true")] { (text) }
            }
        }
    }
}

fn table(failures: &Failures, span: Span) -> Markup {
    let columns = [
        ("", "What went wrong"),
        ("", "Outcome"),
        ("", "App"),
        ("number", "Calls"),
        ("number", "Messages"),
        ("", "Last"),
        ("", "For good"),
    ];
    let rows = html! { @for group in &failures.groups { (line(group, failures, span)) } };
    format::list("Failures, the most frequent first", &columns, &rows)
}

fn line(group: &FailureGroup, failures: &Failures, span: Span) -> Markup {
    let key = &group.key;
    let tone = if key.outcome == "rejected" {
        Tone::Bad
    } else {
        Tone::Warning
    };
    let http_status = key.http_status.map(|status| status.to_string());
    let mut retry = vec![
        ("app", key.app.as_str()),
        ("outcome", &key.outcome),
        ("http_status", http_status.as_deref().unwrap_or_default()),
        ("error", key.error.as_deref().unwrap_or_default()),
        ("span", span.text()),
    ];
    if key.error.is_none() {
        retry.push(("no_error", "1"));
    }
    html! {
        tr {
            th.text scope="row" {
                @if let Some(status) = &http_status { span.code { (status) } " " }
                (key.error.as_deref().unwrap_or("no text"))
            }
            td { (format::badge(tone, &format::words(&key.outcome))) }
            td.name { (key.app) }
            td.number { (format::count(group.calls)) }
            td.number { (format::count(group.messages)) }
            td { (format::when(group.last_at, failures.now)) ", " a href=(format!("/messages/{}", group.example_id)) { "message " (group.example_id) } }
            td {
                @if group.failed == 0 { span.dim { "none" } }
                @else { (format::count(group.failed)) " " a.button href=(format::link("/actions/retry-group", &retry)) { "Send again…" } }
            }
        }
    }
}
