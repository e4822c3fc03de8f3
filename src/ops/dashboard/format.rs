//! Formats values for the pages.

use std::fmt::Display;
use std::time::Duration;

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::pace::DbTime;

/// The colour of a badge. Each badge has a sign, too, for readers who can't tell the colours apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Good,
    Busy,
    Quiet,
    Warning,
    Bad,
}

pub(super) fn badge(tone: Tone, text: &str) -> Markup {
    let (class, sign) = match tone {
        Tone::Good => ("badge good", "✓"),
        Tone::Busy => ("badge busy", "→"),
        Tone::Quiet => ("badge quiet", "·"),
        Tone::Warning => ("badge warning", "!"),
        Tone::Bad => ("badge bad", "✕"),
    };
    html! { span class=(class) { span aria-hidden="true" { (sign) } " " (text) } }
}

/// A message's state as a badge.
pub(super) fn state(state: &str) -> Markup {
    let tone = match state {
        "message_sent" | "message_delivered" => Tone::Good,
        "sending" => Tone::Busy,
        "retrying" | "unknown" | "message_offline" => Tone::Warning,
        "failed" => Tone::Bad,
        _ => Tone::Quiet,
    };
    badge(tone, &words(state))
}

/// The outcome of a failed attempt as a badge.
pub(super) fn outcome(outcome: &str) -> Markup {
    let is_final = outcome == "rejected";
    badge(
        if is_final { Tone::Bad } else { Tone::Warning },
        &words(outcome),
    )
}

/// A state or an outcome in words: `message_sent` is "sent".
pub(super) fn words(state: &str) -> String {
    state.trim_start_matches("message_").replace('_', " ")
}

/// A text with a capital at its beginning and a full stop at its end.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    let end = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{first}{}{end}", chars.as_str())
}

/// A table in a panel. Each column has classes, such as `number`, and a heading.
pub(super) fn list(name: &str, columns: &[(&str, &str)], rows: &Markup) -> Markup {
    html! {
        div.panel.scroll role="region" aria-label=(name) tabindex="0" {
            table.list {
                thead {
                    tr {
                        @for (classes, column) in columns {
                            th class=[(!classes.is_empty()).then_some(classes)] scope="col" { (column) }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// `12,345`.
pub(super) fn number(value: impl Display) -> String {
    let digits = value.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups
        .filter_map(|group| str::from_utf8(group).ok())
        .collect::<Vec<_>>()
        .join(",")
}

/// `1 message`, `2,000 messages`.
pub(super) fn messages(count: u64) -> String {
    let noun = if count == 1 { "message" } else { "messages" };
    format!("{} {noun}", number(count))
}

pub(super) fn rate(per_s: f64) -> String {
    if per_s >= 100.0 || per_s.fract() == 0.0 {
        format!("{per_s:.0}")
    } else {
        format!("{per_s:.1}")
    }
}

/// A duration with at most two units: `35 ms`, `1.4 s`, `3 min 20 s`, `2 d 5 h`.
pub(super) fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{big} {unit}")
        } else {
            format!("{big} {unit} {small} {small_unit}")
        }
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

pub(super) fn time(at: DbTime) -> Markup {
    html! { time datetime=(at) { (to_the_second(at)) } }
}

/// A time, and the distance from now.
pub(super) fn time_and_distance(at: DbTime, now: DbTime) -> Markup {
    html! { (time(at)) span.dim { " (" (distance(at, now)) ")" } }
}

/// The distance of a time from now. The time itself is a tooltip.
pub(super) fn when(at: DbTime, now: DbTime) -> Markup {
    html! { time datetime=(at) title=(to_the_second(at)) { (distance(at, now)) } }
}

fn distance(at: DbTime, now: DbTime) -> String {
    let far = now.since(at).max(at.since(now));
    if far < Duration::from_secs(1) {
        "now".into()
    } else if at < now {
        format!("{} ago", duration(far))
    } else {
        format!("in {}", duration(far))
    }
}

fn to_the_second(at: DbTime) -> String {
    let at = OffsetDateTime::from(at);
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
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
    fn durations_have_two_units_at_most() {
        let shown: Vec<_> = [4, 1_400, 59_900, 60_000, 200_000, 7_500_000, 190_800_000]
            .map(|ms| duration(Duration::from_millis(ms)))
            .into();
        let expected = [
            "4 ms",
            "1.4 s",
            "59 s",
            "1 min",
            "3 min 20 s",
            "2 h 5 min",
            "2 d 5 h",
        ];
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
