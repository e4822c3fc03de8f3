//! Failed calls, in groups of the same outcome, HTTP status and error.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::error::PageError;
use super::flash::Flash;
use super::format::{self, Tone};
use super::layout;
use super::message::http_status;
use super::messages::given;
use crate::ops::OpsState;
use crate::outbox::{FailureGroup, FailureKey, Failures, MAX_CALLS_LOOKED_AT};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    app: String,
    span: Span,
    outcome: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Span {
    #[default]
    Hour,
    Day,
}

impl Span {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Hour => "the last hour",
            Self::Day => "the last 24 hours",
        }
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::from_hours(1),
            Self::Day => Duration::from_hours(24),
        }
    }
}

/// A group in a URL. An absent error means a group without an error text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    pub(super) app: String,
    outcome: String,
    http_status: String,
    error: Option<String>,
    pub(super) span: Span,
}

impl Group {
    fn new(key: &FailureKey, span: Span) -> Self {
        let key = key.clone();
        Self {
            app: key.app,
            outcome: key.outcome,
            http_status: key
                .http_status
                .map(|status| status.to_string())
                .unwrap_or_default(),
            error: key.error,
            span,
        }
    }

    pub(super) fn query(&self) -> [(&'static str, &str); 5] {
        [
            ("app", &self.app),
            ("outcome", &self.outcome),
            ("http_status", &self.http_status),
            ("error", self.error.as_deref().unwrap_or_default()),
            ("span", self.span.text()),
        ]
    }

    pub(super) fn key(&self) -> FailureKey {
        FailureKey {
            app: self.app.clone(),
            outcome: self.outcome.clone(),
            http_status: self.http_status.parse().ok(),
            error: self.error.clone(),
        }
    }
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(params): Query<Params>,
    Query(flash): Query<Flash>,
) -> Result<Response, PageError> {
    let (app, outcome, span) = (given(&params.app), given(&params.outcome), params.span);
    let failures = super::outbox(&state)?
        .failures(app.as_deref(), outcome.as_deref(), span.length())
        .await?;
    let link = |span: Span| {
        let query = [
            ("app", params.app.as_str()),
            ("span", span.text()),
            ("outcome", &params.outcome),
        ];
        format::link("/failures", &query)
    };
    let live = html! {
        div.head {
            h1 { "Failures" }
            nav.pages aria-label="Time span" {
                @for (each, text) in [(Span::Hour, "Last hour"), (Span::Day, "Last 24 hours")] {
                    a.button href=(link(each)) aria-current=[(each == span).then_some("true")] { (text) }
                }
            }
        }
        p.why {
            "Failed calls of " (span.words())
            @if let Some(app) = &app { ", of " b { (app) } }
            @if let Some(outcome) = &outcome { ", with the outcome " b { (format::words(outcome)) } }
            "."
            @if app.is_some() || outcome.is_some() { " " a href=(format::link("/failures", &[("span", span.text())])) { "Show all" } "." }
        }
        @if let Some(since) = failures.only_since {
            p.panel {
                "Many calls failed. The page counts the newest " (format::number(MAX_CALLS_LOOKED_AT)) " failed calls of all apps, since "
                (format::time_and_distance(since, failures.now)) "."
            }
        }
        @if !failures.groups.is_empty() {
            (table(&failures, span))
        } @else if failures.only_since.is_some() {
            p.panel { "None of these calls matches." }
        } @else {
            p.panel { (format::badge(Tone::Good, "none")) " No call failed." }
        }
    };
    Ok(layout::page(
        "Failures",
        "/failures",
        true,
        &flash.markup(),
        &live,
    ))
}

fn table(failures: &Failures, span: Span) -> Markup {
    let columns = [
        ("", "Error"),
        ("", "Outcome"),
        ("", "App"),
        ("number", "Calls"),
        ("number", "Messages"),
        ("", "Last"),
        ("", "Failed for good"),
    ];
    let rows = html! { @for group in &failures.groups { (row(group, failures, span)) } };
    format::list("Failures, the most frequent first", &columns, &rows)
}

fn row(group: &FailureGroup, failures: &Failures, span: Span) -> Markup {
    let key = &group.key;
    let retry = format::link("/actions/retry-group", &Group::new(key, span).query());
    html! {
        tr {
            th.text scope="row" { (http_status(key.http_status)) (key.error.as_deref().unwrap_or("no error text")) }
            td { (format::outcome(&key.outcome)) }
            td.name { (key.app) }
            td.number { (format::number(group.calls)) }
            td.number { (format::number(group.messages)) }
            td { (format::when(group.last_at, failures.now)) ", " a href=(format!("/messages/{}", group.example_id)) { "message " (group.example_id) } }
            td {
                @if group.failed == 0 { span.dim { "none" } }
                @else { (format::number(group.failed)) " " a.button href=(retry) { "Send again…" } }
            }
        }
    }
}
