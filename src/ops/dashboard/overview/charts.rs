//! An app's last hour, from its stats by the minute.

use maud::Markup;

use crate::ops::dashboard::chart::{Chart, MINUTES};
use crate::ops::dashboard::format;
use crate::outbox::{AppStatus, MinuteStats};
use crate::pace::DbTime;

/// Where a minute stands in a plot, if it does: at its end.
fn minutes_before(minute: DbTime, now: DbTime) -> Option<f64> {
    let ago_s = now.since(minute).as_secs_f64() - minute.since(now).as_secs_f64();
    let at = 1.0 - ago_s / 60.0;
    (-MINUTES..0.0).contains(&at).then_some(at)
}

/// Calls a second, minute by minute, against the limit.
#[expect(clippy::cast_precision_loss, reason = "for a plot")]
pub(super) fn calls(
    app: &AppStatus,
    minutes: &[MinuteStats],
    now: DbTime,
    limit: Option<f64>,
) -> Markup {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for minute in minutes.iter().filter(|minute| minute.app == app.app) {
        let Some(at) = minutes_before(minute.minute, now) else {
            continue;
        };
        // Nothing was done in a minute that is missing.
        let before = points.last().map_or(-MINUTES, |(at, _)| *at);
        if at - before > 1.5 {
            points.extend([
                (before + if points.is_empty() { 0.0 } else { 1.0 }, 0.0),
                (at - 1.0, 0.0),
            ]);
        }
        points.push((at, minute.stats.calls() as f64 / 60.0));
    }
    let last = points.last().map_or(-MINUTES, |(at, _)| *at);
    if last < -1.5 {
        points.extend([
            (last + if points.is_empty() { 0.0 } else { 1.0 }, 0.0),
            (-1.0, 0.0),
        ]);
    }
    let busiest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    points.push((0.0, app.rate_per_s));
    let of_limit = limit.map_or(String::new(), |limit| {
        format!(", limit {} (dashed)", format::rate(limit))
    });
    Chart {
        title: "Calls a second, last hour",
        description: &format!(
            "Now {}; {} in the busiest minute{of_limit}.",
            format::rate(app.rate_per_s),
            format::rate((busiest * 10.0).round() / 10.0),
        ),
        points: &points,
        limit,
    }
    .figure()
}

/// What waited, minute by minute.
#[expect(clippy::cast_precision_loss, reason = "for a plot")]
pub(super) fn backlog(app: &AppStatus, minutes: &[MinuteStats], now: DbTime) -> Markup {
    let backlog = app.pending.backlog();
    let mut points: Vec<(f64, f64)> = minutes
        .iter()
        .filter(|minute| minute.app == app.app)
        .filter_map(|minute| Some((minutes_before(minute.minute, now)?, minute.backlog? as f64)))
        .collect();
    let most = minutes
        .iter()
        .filter(|minute| minute.app == app.app)
        .filter_map(|minute| minute.backlog)
        .fold(backlog, u64::max);
    points.push((0.0, backlog as f64));
    Chart {
        title: "Messages that wait, last hour",
        description: &format!(
            "Now {}, at most {}.",
            format::number(backlog),
            format::number(most)
        ),
        points: &points,
        limit: None,
    }
    .figure()
}
