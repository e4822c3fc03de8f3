//! Failed calls, in groups of the same outcome, HTTP status and error.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::format;
use super::layout::{self, PageError};
use super::message::http_status;
use super::messages::{Form, field, given};
use crate::ops::OpsState;
use crate::outbox::{FailureGroup, MAX_CALLS_READ};

const SPAN: Duration = Duration::from_hours(24);

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(form): Query<Form>,
) -> Result<Response, PageError> {
    let (app, outcome) = (given(field(&form, "app")), given(field(&form, "outcome")));
    let groups = super::outbox(&state)?.failures(app.as_deref(), outcome.as_deref(), SPAN);
    let groups = groups.await?;
    let live = html! {
        h1 { "Failures" }
        p.why {
            "Failed calls of the last 24 hours"
            @if let Some(app) = &app { ", of " b { (app) } }
            @if let Some(outcome) = &outcome { ", with the outcome " b { (format::words(outcome)) } }
            ". The page counts the newest " (format::number(MAX_CALLS_READ)) " failed calls of all apps at most. "
            code { "worker retry" } " sends messages again that failed for good."
            @if app.is_some() || outcome.is_some() { " " a href="/failures" { "Show all" } "." }
        }
        @if !groups.is_empty() {
            (table(&groups))
        } @else if app.is_some() || outcome.is_some() {
            p.panel { "None of these calls matches." }
        } @else {
            p.panel { (format::badge("good", "none")) " No call failed." }
        }
    };
    Ok(layout::page(
        "Failures",
        "/failures",
        true,
        &html! {},
        &live,
    ))
}

fn table(groups: &[FailureGroup]) -> Markup {
    let columns = html! {
        th { "Error" } th { "Outcome" } th { "App" } th.number { "Calls" } th.number { "Messages" }
        th { "Last" } th.number { "Failed for good" }
    };
    let rows = html! {
        @for group in groups {
            tr {
                th.text scope="row" { (http_status(group.http_status)) (group.error.as_deref().unwrap_or("no error text")) }
                td { (format::state(&group.outcome)) }
                td.name { (group.app) }
                td.number { (format::number(group.calls)) }
                td.number { (format::number(group.messages)) }
                td { (format::when(group.last_at, group.now)) ", " a href=(format!("/messages/{}", group.example_id)) { "message " (group.example_id) } }
                td.number { (format::number(group.failed)) }
            }
        }
    };
    format::list("Failures, the most frequent first", &columns, &rows)
}
