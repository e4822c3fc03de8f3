//! Formats values for the pages.

use std::fmt::Display;
use std::time::Duration;

use maud::{Markup, html};

use crate::pace::DbTime;
use crate::time_text;

/// The style sheet gives each tone a colour, and a sign for readers who can't tell the colours apart.
pub(super) fn badge(tone: &str, text: &str) -> Markup {
    html! { span.badge.(tone) { (text) } }
}

/// The state of a message or a lane, or the outcome of a failed attempt, as a badge.
pub(super) fn state(state: &str) -> Markup {
    let tone = match state {
        "message_sent" | "message_delivered" | "sending" => "good",
        "queued" | "scheduled" | "expired" | "cancelled" => "quiet",
        "failed" | "rejected" | "unauthorized" | "unavailable" | "no_worker"
        | "other_environment" => "bad",
        _ => "warning",
    };
    badge(tone, &words(state))
}

/// A state or an outcome in words: `message_sent` is "sent".
pub(super) fn words(state: &str) -> String {
    state.trim_start_matches("message_").replace('_', " ")
}

/// A text with a capital at its beginning and a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let is_ended = text.ends_with(['.', '!', '?']);
    let end = if is_ended { "" } else { "." };
    format!("{}{rest}{end}", first.to_uppercase())
}

pub(super) fn list(name: &str, columns: &Markup, rows: &Markup) -> Markup {
    html! {
        div.panel.scroll role="region" aria-label=(name) tabindex="0" {
            table.list {
                thead { tr { (columns) } }
                tbody { (rows) }
            }
        }
    }
}

pub(super) fn number(value: impl Display) -> String {
    let digits = value.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups
        .filter_map(|group| str::from_utf8(group).ok())
        .collect::<Vec<_>>()
        .join(",")
}

pub(super) fn rate(per_s: f64) -> String {
    ((per_s * 10.0).round() / 10.0).to_string()
}

/// `35.0ms`, `1.4s`, `3m 20s`.
pub(super) fn duration(duration: Duration) -> String {
    if duration < Duration::from_mins(1) {
        return format!("{duration:.1?}");
    }
    time_text::duration(duration.as_secs_f64())
}

pub(super) fn time(at: DbTime) -> Markup {
    html! { time { (at.floor(Duration::from_millis(1))) } }
}

/// The distance of a time from now. The time itself is a tooltip.
pub(super) fn when(at: DbTime, now: DbTime) -> Markup {
    let far = duration(now.since(at).max(at.since(now)));
    html! {
        time datetime=(at) title=(at) {
            @if at < now { (far) " ago" } @else { "in " (far) }
        }
    }
}

/// A path with a query. Pairs without a value are left out.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let pairs = query.iter().filter(|(_, value)| !value.is_empty());
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs(pairs).finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_between_thousands() {
        let shown: Vec<_> = [0, 999, 1_000, 12_345, 1_234_567].map(number).into();
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn short_durations_have_a_fraction_and_long_ones_do_not() {
        let shown = [4, 1_400, 59_900, 60_000, 200_300, 7_505_000]
            .map(|ms| duration(Duration::from_millis(ms)));
        let expected = ["4.0ms", "1.4s", "59.9s", "1m", "3m 20s", "2h 5m 5s"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_sentence_has_a_capital_and_a_full_stop() {
        assert_eq!(sentence("there is no app 'x'"), "There is no app 'x'.");
        assert_eq!(sentence("Why?"), "Why?");
    }

    #[test]
    fn a_link_carries_any_text() {
        let url = link("/messages", &[("app", ""), ("error", "a&b=\"<c> d")]);
        assert_eq!(url, "/messages?error=a%26b%3D%22%3Cc%3E+d");
        assert_eq!(link("/", &[]), "/");
    }
}
