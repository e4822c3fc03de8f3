//! How values are printed.

use std::time::Duration;

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::pace::DbTime;

/// What a state means for whoever looks on. Each has a sign of its own: colour is never all that tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Busy,
    Quiet,
    Warning,
    Bad,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "badge good",
            Self::Busy => "badge busy",
            Self::Quiet => "badge quiet",
            Self::Warning => "badge warning",
            Self::Bad => "badge bad",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Busy => "→",
            Self::Quiet => "·",
            Self::Warning => "!",
            Self::Bad => "✕",
        }
    }
}

/// A word with what it means.
pub(super) fn badge(tone: Tone, text: &str) -> Markup {
    html! { span class=(tone.class()) { span aria-hidden="true" { (tone.sign()) } " " (text) } }
}

/// A state of a message.
pub(super) fn state(state: &str) -> Markup {
    badge(state_tone(state), &words(state))
}

fn state_tone(state: &str) -> Tone {
    match state {
        "message_sent" | "message_delivered" => Tone::Good,
        "sending" => Tone::Busy,
        "retrying" | "unknown" | "message_offline" => Tone::Warning,
        "failed" => Tone::Bad,
        _ => Tone::Quiet,
    }
}

/// A state or an outcome as people say it.
pub(super) fn words(state: &str) -> String {
    match state {
        "message_sent" => "sent".into(),
        "message_delivered" => "delivered".into(),
        "message_offline" => "offline".into(),
        _ => state.replace('_', " "),
    }
}

/// A list in a panel: its name, its columns, each with its classes (such as `number`, or none), and its rows.
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
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same of a number that the database has counted.
pub(super) fn count(value: i64) -> String {
    number(value.unsigned_abs())
}

/// `1 message`, `2,000 messages`.
pub(super) fn messages(count: u64) -> String {
    let noun = if count == 1 { "message" } else { "messages" };
    format!("{} {noun}", number(count))
}

/// Calls a second.
pub(super) fn rate(per_s: f64) -> String {
    if per_s >= 100.0 || per_s.fract() == 0.0 {
        format!("{per_s:.0}")
    } else {
        format!("{per_s:.1}")
    }
}

/// A duration with two digits or units, as `35 ms`, `1.4 s`, `3 min 20 s`, `2 d 5 h`.
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

/// A duration that may be none.
pub(super) fn maybe_duration(of: Option<Duration>) -> String {
    of.map_or_else(|| "–".into(), duration)
}

/// A time, to the second.
pub(super) fn time(at: DbTime) -> Markup {
    html! { time datetime=(at) { (date_and_clock(at)) } }
}

/// A time with how long ago or ahead it is.
pub(super) fn time_and_distance(at: DbTime, now: DbTime) -> Markup {
    html! { (time(at)) span.dim { " (" (distance(at, now)) ")" } }
}

/// How long ago or ahead a time is, which itself shows where a pointer rests.
pub(super) fn when(at: DbTime, now: DbTime) -> Markup {
    html! { time datetime=(at) title=(date_and_clock(at)) { (distance(at, now)) } }
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

fn date_and_clock(at: DbTime) -> String {
    let at = OffsetDateTime::from(at);
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
}

/// A path with a query of these pairs, as far as they have a value.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        serializer.append_pair(key, value);
    }
    let query = serializer.finish();
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
    fn numbers_have_their_thousands_apart() {
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
    fn a_link_carries_any_text() {
        let url = link("/messages", &[("app", ""), ("error", "a&b=\"<c> d")]);
        assert_eq!(url, "/messages?error=a%26b%3D%22%3Cc%3E+d");
        assert_eq!(link("/", &[]), "/");
    }
}
