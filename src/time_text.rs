//! Times as people and scripts write them.

use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// The accepted texts, for the end of an error.
pub(crate) const ACCEPTED: &str = "write a time with its offset from UTC, like 2030-01-31T12:00:00Z or 2030-01-31T13:00:00+01:00, or a date like 2030-01-31, which means its midnight in UTC";

const DATE: &[FormatItem<'static>] = format_description!("[year]-[month]-[day]");

/// Reads a time of RFC 3339, or a date as its midnight in UTC. None if the text is neither.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    let midnight = || Date::parse(text, DATE).map(|date| date.midnight().assume_utc());
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| midnight())
        .ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_needs_an_offset_and_a_date_is_its_midnight_in_utc() {
        let noon = datetime!(2030-01-31 12:00 UTC);
        assert_eq!(parse("2030-01-31T12:00:00Z"), Some(noon));
        assert_eq!(parse("2030-01-31T13:00:00+01:00"), Some(noon));
        assert_eq!(parse("2030-01-31"), Some(datetime!(2030-01-31 00:00 UTC)));
        for text in ["", "tomorrow", "2030-01-31T12:00:00", "2030-02-30", "2030"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
