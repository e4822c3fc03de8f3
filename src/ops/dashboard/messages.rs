//! The list of messages, newest first, with a search form.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::format;
use super::layout::{self, PageError};
use super::message::http_status;
use crate::ops::OpsState;
use crate::outbox::{MessageFilter, MessagePage, PAGE_ROWS, PENDING, STATES};
use crate::pace::DbTime;
use crate::{sanitize, time_text};

pub(super) const MAX_TEXT_CHARS: usize = 300;

/// The name, label and type of each text field of the search form.
const FIELDS: [(&str, &str, &str); 7] = [
    ("app", "App", "text"),
    ("to", "Destination or channel", "text"),
    ("sender", "Sender", "text"),
    ("since", "Inserted since (UTC)", "datetime-local"),
    ("until", "Inserted before (UTC)", "datetime-local"),
    ("error", "Error contains", "text"),
    ("id", "Id", "text"),
];

/// The search form as the browser sends it. An empty field matches every message.
pub(super) type Form = HashMap<String, String>;

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(form): Query<Form>,
) -> Result<Response, PageError> {
    if let Ok(id) = field(&form, "id").trim().parse::<u64>() {
        return Ok(Redirect::to(&format!("/messages/{id}")).into_response());
    }
    let given = |name| given(field(&form, name));
    let filter = MessageFilter {
        app: given("app"),
        state: given("state"),
        recipient: given("to"),
        sender: given("sender"),
        since: parse_time(field(&form, "since"))?,
        until: parse_time(field(&form, "until"))?,
        error_has: given("error"),
    };
    let before = field(&form, "before").parse().ok();
    let page = super::outbox(&state)?.search(&filter, before).await?;
    let fixed = search_form(&form);
    let live = html! {
        @if page.rows.is_empty() {
            p.panel {
                @if page.next_before.is_some() { "No match so far. Search the older messages, too." }
                @else if before.is_none() && filter == MessageFilter::default() { "There are no messages yet." }
                @else { "No message matches." }
            }
        } @else {
            (table(&page))
        }
        nav.pages aria-label="Pages of messages" {
            @if before.is_some() { a.button href=(link(&form, "")) { "Newest" } }
            @if let Some(before) = page.next_before {
                a.button rel="next" href=(link(&form, &before.to_string())) {
                    @if page.rows.len() < PAGE_ROWS { "Search older" } @else { "Older" }
                }
            } @else if !page.rows.is_empty() {
                span.dim { "No older messages." }
            }
        }
    };
    // A refresh would move the rows of an older page.
    let refreshes = before.is_none();
    Ok(layout::page(
        "Messages",
        "/messages",
        refreshes,
        &fixed,
        &live,
    ))
}

pub(super) fn field<'form>(form: &'form Form, name: &str) -> &'form str {
    form.get(name).map_or("", String::as_str)
}

/// The link to the same search, for messages before `before`.
fn link(form: &Form, before: &str) -> String {
    let fields = FIELDS.map(|(name, ..)| (name, field(form, name)));
    let others = [("state", field(form, "state")), ("before", before)];
    format::link("/messages", &[&fields[..], &others].concat())
}

fn search_form(form: &Form) -> Markup {
    let state = field(form, "state");
    html! {
        h1 { "Messages" }
        form.panel.filters method="get" action="/messages" role="search" aria-label="Search the messages" {
            label {
                "State"
                select name="state" {
                    option value="" { "any" }
                    option value=(PENDING) selected[state == PENDING] { "pending (any of the next four)" }
                    @for name in STATES {
                        option value=(name) selected[state == name] { (format::words(name)) }
                    }
                }
            }
            @for (name, label, kind) in FIELDS {
                label {
                    (label)
                    input type=(kind) name=(name) value=(field(form, name)) maxlength=(MAX_TEXT_CHARS)
                        step="1" autocomplete="off" spellcheck="false";
                }
            }
            div.buttons {
                button.primary type="submit" { "Search" }
                a.button href="/messages" { "Clear" }
            }
        }
    }
}

fn table(page: &MessagePage) -> Markup {
    let columns = html! {
        th { "Id" } th { "State" } th { "To" } th.wide { "From" } th.wide { "App" }
        th.number { "Attempts" } th { "Inserted" } th { "Last result" }
    };
    let rows = html! {
        @for row in &page.rows {
            tr {
                th scope="row" { a href=(format!("/messages/{}", row.id)) { (row.id) } }
                td { (format::state(&row.state)) }
                td.name { (recipient(row.destination.as_deref(), row.channel_name.as_deref())) }
                td.name.wide { (row.sender) }
                td.name.wide { (row.app) }
                td.number { (row.attempts + row.uncharged) }
                td { (format::when(row.created_at, row.now)) }
                td.text {
                    (http_status(row.http_status))
                    @if let Some(error) = &row.error { (error) }
                    @if let Some(next) = row.next_attempt_at.filter(|next| *next > row.now) { span.dim { " next call " (format::when(next, row.now)) } }
                    @else if let Some(finished) = row.finished_at.filter(|_| row.error.is_none()) { span.dim { " " (format::when(finished, row.now)) } }
                }
            }
        }
    };
    format::list("Messages, newest first", &columns, &rows)
}

pub(super) fn recipient(destination: Option<&str>, channel: Option<&str>) -> Markup {
    html! {
        @if let Some(channel) = channel { span.dim { "channel " } (channel) }
        @if let Some(destination) = destination { (destination) }
    }
}

/// A field's value without control characters. None if the field is empty.
pub(super) fn given(text: &str) -> Option<String> {
    let text = sanitize::text(text.trim(), MAX_TEXT_CHARS);
    (!text.is_empty()).then_some(text)
}

/// A time as `worker retry` reads it, or as a browser's field has it, which is UTC here and may lack the seconds.
fn parse_time(text: &str) -> Result<Option<DbTime>, PageError> {
    let Some(text) = given(text) else {
        return Ok(None);
    };
    // Postgres refuses some times outside of the years 1 to 9999, which would look like a failure of the database.
    let time = ["", "Z", ":00Z"]
        .into_iter()
        .find_map(|end| time_text::parse(&format!("{text}{end}")).ok());
    let error = "a time is written like 2030-01-31T12:00, in UTC, of the years 1 to 9999";
    time.map(Some)
        .ok_or_else(|| PageError(StatusCode::BAD_REQUEST, error.into()))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_is_read_as_browsers_write_it() {
        for (text, expected) in [
            ("2030-01-31T12:00", datetime!(2030-01-31 12:00 UTC)),
            ("2030-01-31T12:00:05", datetime!(2030-01-31 12:00:05 UTC)),
            ("2030-01-31T13:00:00+01:00", datetime!(2030-01-31 12:00 UTC)),
        ] {
            assert_eq!(parse_time(text).expect("a time"), Some(expected.into()));
        }
        assert_eq!(parse_time(" ").expect("none"), None);
        for text in [
            "yesterday",
            "9999-12-31T23:59:59-05:00",
            "0000-12-31T23:59",
            "-4714-01-01T00:00",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
