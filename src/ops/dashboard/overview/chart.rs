//! Charts of an app's last hour, as SVG. The style sheet has the colours.

use std::io;
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

const MINUTE: Duration = Duration::from_mins(1);

/// The calls per second in each minute, against the limit, and the backlog at the end of each. `minutes` are those of this
/// app.
#[expect(clippy::cast_precision_loss, reason = "for a chart")]
pub(super) fn both(app: &AppStatus, minutes: &[&MinuteStats], now: DbTime) -> Markup {
    let this_minute = now.floor(MINUTE);
    let (mut calls, mut backlog) = (Vec::new(), Vec::new());
    for ago in (1..=60).rev() {
        let (minute, middle) = (this_minute - ago * MINUTE, 0.5 - f64::from(ago));
        let row = minutes.iter().find(|row| row.minute == minute);
        // A minute without a row is a minute without a call.
        let count = row.map_or(0, |row| row.stats.calls());
        calls.push((middle, count as f64 / 60.0));
        let count = row.and_then(|row| row.backlog);
        backlog.extend(count.map(|count| (middle, count as f64)));
    }
    calls.push((0.0, app.rate_per_s));
    backlog.push((0.0, app.pending.backlog() as f64));
    let limit = app.lane.as_ref().map(|lane| lane.limit_per_s);
    html! {
        (figure("Calls per second, last hour", &calls, limit))
        (figure("Backlog, last hour", &backlog, None))
    }
}

/// A chart with its title. `points` are minutes from now, from -60 to 0, with a value, oldest first.
fn figure(title: &str, points: &[(f64, f64)], limit: Option<f64>) -> Markup {
    let highest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let present = format::rate(points.last().map_or(0.0, |(_, value)| *value));
    let mut text = format!("Now {present}, at most {}", format::rate(highest));
    if let Some(limit) = limit {
        text = format!("{text}, limit {} (dashed)", format::rate(limit));
    }
    let mut svg = String::new();
    let is_drawn = draw(&mut svg, points, highest, limit).is_ok();
    html! {
        figure.plot {
            figcaption { (title) }
            @if is_drawn { div role="img" aria-label=(format!("{title}: {text}")) { (PreEscaped(svg)) } }
            p.dim { (text) "." }
        }
    }
}

fn draw(
    svg: &mut String,
    points: &[(f64, f64)],
    highest: f64,
    limit: Option<f64>,
) -> Result<(), DrawingAreaErrorKind<io::Error>> {
    let top = 1.1 * highest.max(limit.unwrap_or(0.0)).max(4.0);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(12)
        .x_label_area_size(24)
        .y_label_area_size(52)
        .build_cartesian_2d(-60.0..0.0, 0.0..top)?;
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
        .y_label_formatter(&|value| format::number(value.round()))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .draw()?;
    chart.draw_series(
        AreaSeries::new(points.iter().copied(), 0.0, AREA).border_style(LINE.stroke_width(2)),
    )?;
    if let Some(limit) = limit {
        let ends = [(-60.0, limit), (0.0, limit)];
        chart.draw_series(DashedLineSeries::new(ends, 6, 4, LIMIT.stroke_width(2)))?;
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_escapes_its_texts_and_has_no_inline_style() {
        let points = [(-60.0, 0.0), (0.0, 3.0)];
        let chart = figure("Calls <per second>", &points, Some(4.0)).into_string();
        for part in [
            "aria-label=\"Calls &lt;per second&gt;: Now 3, at most 3, limit 4 (dashed)\"",
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
