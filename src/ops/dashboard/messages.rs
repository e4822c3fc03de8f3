//! Messages, newest first, and a form that narrows them.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::error::PageError;
use super::format;
use super::layout::{Layout, Section};
use crate::ops::OpsState;
use crate::outbox::{MessageFilter, MessageLine, MessagePage, PAGE_ROWS, PENDING, STATES};
use crate::pace::DbTime;
use crate::sanitize;

/// The longest text that is looked for, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// The form, as it comes: a field that is empty asks for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Form {
    id: String,
    app: String,
    state: String,
    to: String,
    sender: String,
    since: String,
    until: String,
    error: String,
    before: String,
}

pub(super) async fn show(
    State(state): State<OpsState>,
    Query(form): Query<Form>,
) -> Result<Response, PageError> {
    if !form.id.trim().is_empty() {
        let id = number(&form.id)?;
        return Ok(Redirect::to(&format!("/messages/{id}")).into_response());
    }
    let filter = form.filter()?;
    let before = match form.before.as_str() {
        "" => None,
        before => Some(number(before)?),
    };
    let page = super::outbox(&state)?.search(&filter, before).await?;
    let layout = Layout {
        title: "Messages",
        section: Section::Messages,
        // An older page is read, not watched.
        refreshes: before.is_none(),
    };
    let fixed = html! {
        h1 { "Messages" }
        (form.markup())
    };
    Ok(layout.page(&fixed, &form.results(&page, &filter, before)))
}

impl Form {
    fn filter(&self) -> Result<MessageFilter, PageError> {
        let state = wanted(&self.state);
        if let Some(state) = &state
            && state != PENDING
            && !STATES.contains(&state.as_str())
        {
            return Err(PageError::Wrong(format!(
                "there is no such state: it is {PENDING}, {}",
                STATES.join(", ")
            )));
        }
        Ok(MessageFilter {
            app: wanted(&self.app),
            state,
            receiver: wanted(&self.to),
            sender: wanted(&self.sender),
            since: time(&self.since)?,
            until: time(&self.until)?,
            error_has: wanted(&self.error),
        })
    }

    fn query<'a>(&'a self, before: &'a str) -> [(&'static str, &'a str); 8] {
        [
            ("app", &self.app),
            ("state", &self.state),
            ("to", &self.to),
            ("sender", &self.sender),
            ("since", &self.since),
            ("until", &self.until),
            ("error", &self.error),
            ("before", before),
        ]
    }

    fn markup(&self) -> Markup {
        let text = |name: &str, label: &str, value: &str| {
            html! { label { (label) input type="text" name=(name) value=(value) maxlength=(MAX_TEXT_CHARS) autocomplete="off" spellcheck="false"; } }
        };
        let moment = |name: &str, label: &str, value: &str| {
            html! { label { (label) input type="datetime-local" name=(name) value=(value) step="1"; } }
        };
        html! {
            form.panel.filters method="get" action="/messages" role="search" aria-label="Narrow the messages" {
                (text("app", "App", &self.app))
                label {
                    "State"
                    select name="state" {
                        option value="" { "any" }
                        option value=(PENDING) selected[self.state == PENDING] { "pending (any of the next four)" }
                        @for state in STATES {
                            option value=(state) selected[self.state == state] { (format::words(state)) }
                        }
                    }
                }
                (text("to", "Destination or channel", &self.to))
                (text("sender", "Sender", &self.sender))
                (moment("since", "Inserted since (UTC)", &self.since))
                (moment("until", "Inserted before (UTC)", &self.until))
                (text("error", "Error contains", &self.error))
                label { "Id" input type="text" name="id" inputmode="numeric" pattern="[0-9]*" autocomplete="off"; }
                div.buttons {
                    button.primary type="submit" { "Show" }
                    a.button href="/messages" { "Clear" }
                }
            }
        }
    }

    fn results(&self, page: &MessagePage, filter: &MessageFilter, before: Option<i64>) -> Markup {
        let older = |before: i64| format::link("/messages", &self.query(&before.to_string()));
        html! {
            @if page.rows.is_empty() {
                p.panel { (nothing(page, filter, before)) }
            } @else {
                (table(page))
            }
            nav.pages aria-label="Pages of messages" {
                @if before.is_some() {
                    a.button href=(format::link("/messages", &self.query(""))) { "Newest" }
                }
                @if let Some(before) = page.next_before {
                    a.button rel="next" href=(older(before)) {
                        @if page.rows.len() < PAGE_ROWS { "Look further" } @else { "Older" }
                    }
                } @else if !page.rows.is_empty() {
                    span.dim { "No older ones." }
                }
                @if let (Some((highest, lowest)), false) = (page.looked_at, filter.is_empty()) {
                    span.dim #looked { "Looked at the ids " (format::count(highest)) " to " (format::count(lowest)) "." }
                }
            }
        }
    }
}

fn nothing(page: &MessagePage, filter: &MessageFilter, before: Option<i64>) -> &'static str {
    if page.next_before.is_some() {
        "Nothing found so far: there are older messages, which take another look."
    } else if before.is_some() {
        "No more messages like these."
    } else if filter.is_empty() {
        "There are no messages yet."
    } else {
        "No message is like this."
    }
}

fn table(page: &MessagePage) -> Markup {
    let columns = [
        ("", "Id"),
        ("", "State"),
        ("", "To"),
        ("wide", "From"),
        ("wide", "App"),
        ("number", "Calls"),
        ("", "Inserted"),
        ("", "What happened"),
    ];
    let rows = html! { @for row in &page.rows { (line(row, page.now)) } };
    format::list("Messages, newest first", &columns, &rows)
}

fn line(row: &MessageLine, now: DbTime) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(format!("/messages/{}", row.id)) { (row.id) } }
            td { (format::state(&row.state)) }
            td.name { (receiver(row.destination.as_deref(), row.channel_name.as_deref())) }
            td.name.wide { (row.sender) }
            td.name.wide { (row.app) }
            td.number { (row.attempts) }
            td { (format::when(row.created_at, now)) }
            td.text {
                @if let Some(status) = row.http_status { span.code { (status) } " " }
                @if let Some(error) = &row.error { (error) }
                @if let Some(next) = row.next_attempt_at.filter(|next| *next > now) { span.dim { " next call " (format::when(next, now)) } }
                @else if let Some(finished) = row.finished_at.filter(|_| row.error.is_none()) { span.dim { " " (format::when(finished, now)) } }
            }
        }
    }
}

pub(super) fn receiver(destination: Option<&str>, channel: Option<&str>) -> Markup {
    html! {
        @if let Some(channel) = channel { span.dim { "channel " } (channel) }
        @if let Some(destination) = destination { (destination) }
    }
}

/// What a field asks for.
pub(super) fn wanted(text: &str) -> Option<String> {
    let text = sanitize::text(text.trim(), MAX_TEXT_CHARS);
    (!text.is_empty()).then_some(text)
}

fn number(text: &str) -> Result<i64, PageError> {
    text.trim()
        .parse()
        .ok()
        .filter(|id: &i64| *id >= 0)
        .ok_or_else(|| PageError::Wrong("an id is a number, as in 17".into()))
}

/// A time as a browser's field has it, which is UTC here, or as RFC 3339 writes it.
fn time(text: &str) -> Result<Option<DbTime>, PageError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let in_utc = |local: PrimitiveDateTime| local.assume_utc();
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, &seconds).map(in_utc))
        .or_else(|_| PrimitiveDateTime::parse(text, &minutes).map(in_utc))
        .ok()
        .map(DbTime::from)
        // Postgres refuses some earlier and later ones, which would show as a failure of the database.
        .filter(|time| time.is_within_years_1_to_9999())
        .map(Some)
        .ok_or_else(|| {
            PageError::Wrong(
                "a time is written like 2030-01-31T12:00, in UTC, of the years 1 to 9999".into(),
            )
        })
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
            assert_eq!(time(text).expect("a time"), Some(expected.into()));
        }
        assert_eq!(time(" ").expect("none"), None);
        for text in [
            "yesterday",
            "9999-12-31T23:59:59-05:00",
            "0000-12-31T23:59",
            "-4714-01-01T00:00",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
