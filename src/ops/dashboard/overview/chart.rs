//! Charts of an app's last hour, as SVG. The style sheet has the colours.

use std::time::Duration;

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use crate::ops::dashboard::format;
use crate::outbox::{AppStatus, MinuteStats};
use crate::pace::DbTime;

/// Width and height, in units of the SVG. The page scales the chart.
const SIZE: (u32, u32) = (480, 168);
// The style sheet replaces these colours, because light and dark pages need different ones.
const LINE: RGBColor = RGBColor(0x1d, 0x4e, 0xd8);
const AREA: RGBColor = RGBColor(0xdb, 0xe6, 0xfb);
const LIMIT: RGBColor = RGBColor(0xb4, 0x23, 0x18);
const GRID: RGBColor = RGBColor(0xe2, 0xe6, 0xec);
const INK: RGBColor = RGBColor(0x55, 0x60, 0x70);

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
    let (now, busiest) = (format::rate(app.rate_per_s), format::rate(busiest));
    let mut description = format!("Now {now}; {busiest} in the busiest minute");
    if let Some(limit) = limit_per_s {
        description = format!("{description}, limit {} (dashed)", format::rate(limit));
    }
    let title = "Calls per second, last hour";
    figure(title, &description, &points, limit_per_s)
}

/// The backlog at the end of each minute.
#[expect(clippy::cast_precision_loss, reason = "for a chart")]
pub(super) fn backlog(app: &AppStatus, minutes: &[&MinuteStats], now: DbTime) -> Markup {
    let backlog = app.pending.backlog();
    let point =
        |row: &&MinuteStats| Some((0.5 - f64::from(minutes_ago(row, now)?), row.backlog? as f64));
    let mut points: Vec<_> = minutes.iter().filter_map(point).collect();
    points.push((0.0, backlog as f64));
    let earlier = minutes.iter().filter_map(|row| row.backlog).max();
    let most = earlier.unwrap_or(0).max(backlog);
    let (now, most) = (format::number(backlog), format::number(most));
    let description = format!("Now {now}, at most {most}");
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
    let mut svg = String::new();
    let is_drawn = draw(&mut svg, points, limit).is_ok();
    html! {
        figure.plot {
            figcaption { (title) }
            @if is_drawn { div role="img" aria-label=(format!("{title}: {description}")) { (PreEscaped(svg)) } }
            p.dim { (description) "." }
        }
    }
}

fn draw<'svg>(
    svg: &'svg mut String,
    points: &[(f64, f64)],
    limit: Option<f64>,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'svg> as DrawingBackend>::ErrorType>> {
    let top = 1.1 * highest(points).max(limit.unwrap_or(0.0)).max(1.0);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(12)
        .x_label_area_size(24)
        .y_label_area_size(52)
        .build_cartesian_2d(-MINUTES..0.0, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .x_labels(4)
        .y_labels(4)
        .x_label_formatter(&|minutes| match minutes {
            -0.5.. => "now".into(),
            _ => format!("−{:.0} min", -minutes),
        })
        .y_label_formatter(&|value| short(*value))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .draw()?;
    chart.draw_series(
        AreaSeries::new(points.iter().copied(), 0.0, AREA).border_style(LINE.stroke_width(2)),
    )?;
    if let Some(limit) = limit {
        let ends = [(-MINUTES, limit), (0.0, limit)];
        chart.draw_series(DashedLineSeries::new(ends, 6, 4, LIMIT.stroke_width(2)))?;
    }
    root.present()
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
            "aria-label=\"Calls &lt;per second&gt;: at most 3\"",
            "<polyline",
            "#1D4ED8",
            "#B42318",
            "now",
        ] {
            assert!(chart.contains(part), "{part} is missing in {chart}");
        }
        assert!(!chart.contains("style="), "{chart}");
        assert_eq!(chart.matches("svg>").count(), 1, "{chart}");
    }
}
