//! Plots of the last hour, as SVG. Their colours stand in the style sheet, which tells light from dark; those that are
//! given here say which is which.

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

/// Width and height, in the units of the picture; it is shown as wide as there is room.
const SIZE: (u32, u32) = (480, 168);
pub(super) const MINUTES: f64 = 60.0;

const LINE: RGBColor = RGBColor(0x1d, 0x4e, 0xd8);
const AREA: RGBColor = RGBColor(0xdb, 0xe6, 0xfb);
const LIMIT: RGBColor = RGBColor(0xb4, 0x23, 0x18);
const GRID: RGBColor = RGBColor(0xe2, 0xe6, 0xec);
const INK: RGBColor = RGBColor(0x55, 0x60, 0x70);

pub(super) struct Chart<'a> {
    /// What it is, for those who don't see it, too.
    pub(super) title: &'a str,
    /// What there is to see.
    pub(super) description: &'a str,
    /// Minutes from now (below 0) and what was then, oldest first.
    pub(super) points: &'a [(f64, f64)],
    /// A line that is not to be crossed.
    pub(super) limit: Option<f64>,
}

impl Chart<'_> {
    /// The plot with its title.
    pub(super) fn figure(&self) -> Markup {
        html! {
            figure.plot {
                figcaption { (self.title) }
                (self.svg().unwrap_or_else(|| html! { p.dim { "It can't be drawn." } }))
                p.dim { (self.description) }
            }
        }
    }

    fn svg(&self) -> Option<Markup> {
        let mut svg = String::new();
        self.draw(&mut svg).ok()?;
        let shapes = svg.split_once('>')?.1;
        let (width, height) = SIZE;
        Some(html! {
            svg role="img" viewBox=(format!("0 0 {width} {height}")) xmlns="http://www.w3.org/2000/svg" {
                title { (self.title) }
                desc { (self.description) }
                (PreEscaped(shapes.trim_end().trim_end_matches("</svg>")))
            }
        })
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let highest = self
            .points
            .iter()
            .map(|(_, value)| *value)
            .chain(self.limit)
            .fold(1.0, f64::max);
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(8)
            .margin_right(12)
            .x_label_area_size(24)
            .y_label_area_size(52)
            .build_cartesian_2d(-MINUTES..0.0, 0.0..highest * 1.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(GRID)
            .x_labels(4)
            .y_labels(4)
            .x_label_formatter(&|minutes| moment(*minutes))
            .y_label_formatter(&|value| short(*value))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()?;
        chart.draw_series(
            AreaSeries::new(self.points.iter().copied(), 0.0, AREA)
                .border_style(LINE.stroke_width(2)),
        )?;
        if let Some(limit) = self.limit {
            chart.draw_series(DashedLineSeries::new(
                [(-MINUTES, limit), (0.0, limit)],
                6,
                4,
                LIMIT.stroke_width(2),
            ))?;
        }
        root.present()?;
        Ok(())
    }
}

/// When it was, as an axis has it.
fn moment(minutes: f64) -> String {
    if minutes > -0.5 {
        "now".into()
    } else {
        format!("−{:.0} min", -minutes)
    }
}

/// A value as an axis has room for.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e4.. => format!("{}k", value / 1e3),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_says_what_it_shows_and_has_no_style_of_its_own() {
        let plot = Chart {
            title: "Calls <a second>",
            description: "at most 3",
            points: &[(-60.0, 0.0), (0.0, 3.0)],
            limit: Some(5.0),
        };
        let shown = plot.figure().into_string();
        for part in [
            "role=\"img\"",
            "<title>Calls &lt;a second&gt;</title>",
            "<desc>at most 3</desc>",
            "#1D4ED8",
            "#B42318",
            "now",
        ] {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
        assert!(!shown.contains("style="), "{shown}");
        assert_eq!(shown.matches("<svg").count(), 1);
        assert_eq!(shown.matches("</svg>").count(), 1);
    }

    #[test]
    fn nothing_can_be_plotted() {
        let plot = Chart {
            title: "Backlog",
            description: "",
            points: &[],
            limit: None,
        };
        assert!(plot.svg().is_some());
    }
}
