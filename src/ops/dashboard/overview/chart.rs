//! Charts of an app's last hour, as SVG. The style sheet has the colours.

use std::time::Duration;

use maud::{Markup, html};

use crate::ops::dashboard::format;
use crate::outbox::{AppStatus, MinuteStats};
use crate::pace::DbTime;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 168.0;
/// The edges of the plot. Outside of them stand the labels.
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 24.0;

const MINUTES: f64 = 60.0;
const MINUTE: Duration = Duration::from_mins(1);

/// Calls per second in each minute, against the limit. `minutes` are those of this app.
#[expect(clippy::cast_precision_loss, reason = "for a chart")]
pub(super) fn calls(app: &AppStatus, minutes: &[&MinuteStats], now: DbTime) -> Markup {
    // A minute without a row is a minute without a call.
    let calls_ago = |ago: u8| {
        let found = minutes
            .iter()
            .find(|row| minutes_ago(row, now) == Some(ago));
        found.map_or(0.0, |row| row.stats.calls() as f64 / MINUTES)
    };
    let point = |ago: u8| (0.5 - f64::from(ago), calls_ago(ago));
    let mut points: Vec<_> = (1..=60).rev().map(point).collect();
    let busiest = highest(&points);
    points.push((0.0, app.rate_per_s));
    let limit_per_s = app.lane.as_ref().map(|lane| lane.limit_per_s);
    let mut description = format!(
        "Now {}; {} in the busiest minute",
        format::rate(app.rate_per_s),
        format::rate((busiest * 10.0).round() / 10.0)
    );
    if let Some(limit) = limit_per_s {
        description = format!("{description}, limit {} (dashed)", format::rate(limit));
    }
    figure(
        "Calls per second, last hour",
        &description,
        &points,
        limit_per_s,
    )
}

/// The backlog at the end of each minute.
#[expect(clippy::cast_precision_loss, reason = "for a chart")]
pub(super) fn backlog(app: &AppStatus, minutes: &[&MinuteStats], now: DbTime) -> Markup {
    let backlog = app.pending.backlog();
    let point =
        |row: &&MinuteStats| Some((0.5 - f64::from(minutes_ago(row, now)?), row.backlog? as f64));
    let mut points: Vec<_> = minutes.iter().filter_map(point).collect();
    points.push((0.0, backlog as f64));
    let most = minutes
        .iter()
        .filter_map(|row| row.backlog)
        .fold(backlog, u64::max);
    let description = format!(
        "Now {}, at most {}",
        format::number(backlog),
        format::number(most)
    );
    figure("Backlog, last hour", &description, &points, None)
}

/// How many minutes before the current one a row's minute is. None if the chart does not show that minute.
fn minutes_ago(row: &MinuteStats, now: DbTime) -> Option<u8> {
    let ago = now.floor(MINUTE).since(row.minute).as_secs() / 60;
    u8::try_from(ago).ok().filter(|ago| (1..=60).contains(ago))
}

fn highest(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|(_, value)| *value).fold(0.0, f64::max)
}

/// A chart with its title. `points` are minutes from now, from -60 to 0, with a value, oldest first.
fn figure(title: &str, description: &str, points: &[(f64, f64)], limit: Option<f64>) -> Markup {
    let top = round_up(highest(points).max(limit.unwrap_or(0.0)).max(1.0));
    let x = |minutes: f64| RIGHT + minutes / MINUTES * (RIGHT - LEFT);
    let y = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);
    let position = |(minutes, value): &(f64, f64)| format!("{:.1},{:.1} ", x(*minutes), y(*value));
    let line: String = points.iter().map(position).collect();
    let from = points.first().map_or(0.0, |(minutes, _)| *minutes);
    let area = format!("{:.1},{BOTTOM} {line}{RIGHT},{BOTTOM}", x(from));
    let level = |class: &str, value: f64| {
        html! { line class=(class) x1=(LEFT) x2=(RIGHT) y1=(y(value)) y2=(y(value)) {} }
    };
    html! {
        figure.plot {
            figcaption { (title) }
            svg role="img" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) xmlns="http://www.w3.org/2000/svg" {
                title { (title) }
                desc { (description) "." }
                @for value in [0.0, top / 2.0, top] {
                    (level("grid", value))
                    text x=(LEFT - 6.0) y=(y(value) + 5.0) text-anchor="end" { (short(value)) }
                }
                @for (minutes, label) in [(-60.0, "−60 min"), (-40.0, "−40 min"), (-20.0, "−20 min"), (0.0, "now")] {
                    text x=(x(minutes)) y=(HEIGHT - 6.0) text-anchor=(if minutes < 0.0 { "middle" } else { "end" }) { (label) }
                }
                polygon points=(area) {}
                polyline points=(line) {}
                @if let Some(limit) = limit { (level("limit", limit)) }
            }
            p.dim { (description) "." }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(value: f64) -> f64 {
    let magnitude = 10_f64.powf(value.log10().floor());
    let mut steps = [1.0, 2.0, 5.0].map(|step| step * magnitude).into_iter();
    steps
        .find(|step| *step >= value)
        .unwrap_or(10.0 * magnitude)
}

fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e4.. => format!("{}k", value / 1e3),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_escapes_its_texts_and_has_no_inline_style() {
        let points = [(-60.0, 0.0), (0.0, 3.0)];
        let chart = figure("Calls <per second>", "at most 3", &points, Some(4.0)).into_string();
        for part in [
            "<title>Calls &lt;per second&gt;</title>",
            "<desc>at most 3.</desc>",
            "points=\"52.0,144.0 468.0,63.6 \"",
            ">5</text>",
            "class=\"limit\"",
        ] {
            assert!(chart.contains(part), "{part} is missing in {chart}");
        }
        assert!(!chart.contains("style="), "{chart}");
    }
}
