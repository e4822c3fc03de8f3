//! Times and durations as people and scripts write them.

use std::time::Duration;

use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::outbox::MIN_RETENTION;
use crate::pace::DbTime;
use crate::secret::given;

const DATE: &[FormatItem<'static>] = format_description!("[year]-[month]-[day]");

/// Reads a time of RFC 3339, or a date as its midnight in UTC.
pub(crate) fn parse(text: &str) -> Result<DbTime, &'static str> {
    let midnight = || Date::parse(text, DATE).map(|date| date.midnight().assume_utc());
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| midnight())
        .map_err(|_| "it is not a time: write a time with its offset from UTC, like 2030-01-31T12:00:00Z or 2030-01-31T13:00:00+01:00, or a date like 2030-01-31, which means its midnight in UTC")?;
    let time = DbTime::from(time);
    if !time.is_within_years_1_to_9999() {
        return Err("it is before year 1 or after year 9999 in UTC");
    }
    Ok(time)
}

/// The longest duration of a setting. With it, no sum of times leaves its range.
const MAX_DURATION_DAYS: u32 = 30;
const MAX_RETENTION_DAYS: u32 = 3_653;

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_days(text, MAX_DURATION_DAYS)
}

pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration < Duration::from_millis(1) {
        return Err("it is shorter than 1ms: set it to at least 1ms".into());
    }
    Ok(duration)
}

pub(crate) fn parse_retention(text: &str) -> Result<Duration, String> {
    match parse_days(text, MAX_RETENTION_DAYS) {
        Ok(retention) if retention < MIN_RETENTION => Err(
            "it is shorter than 1 minute: write it like 12h or 30d, or leave it unset to keep all messages".into(),
        ),
        parsed => parsed,
    }
}

fn parse_days(text: &str, max_days: u32) -> Result<Duration, String> {
    match humantime::parse_duration(given(text).unwrap_or_default()) {
        Ok(duration) if duration <= Duration::from_hours(24) * max_days => Ok(duration),
        Ok(_) => Err(format!("it is longer than {max_days} days")),
        Err(_) => Err(
            "it is not a duration: write a number with its unit, like 200ms, 15s, 12h or 30d"
                .into(),
        ),
    }
}

/// A duration in words, to the second, like `10m 1s`.
pub(crate) fn duration(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or(Duration::MAX);
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_needs_an_offset_and_a_date_is_its_midnight_in_utc() {
        let noon = datetime!(2030-01-31 12:00 UTC);
        assert_eq!(parse("2030-01-31T12:00:00Z"), Ok(noon.into()));
        assert_eq!(parse("2030-01-31T13:00:00+01:00"), Ok(noon.into()));
        let midnight = datetime!(2030-01-31 00:00 UTC);
        assert_eq!(parse("2030-01-31"), Ok(midnight.into()));
        for text in [
            "",
            "tomorrow",
            "2030-01-31T12:00:00",
            "2030-02-30",
            "2030",
            "9999-12-31T23:59:59-05:00",
            "0001-01-01T00:00:00+01:00",
            "0000-06-01T00:00:00Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
