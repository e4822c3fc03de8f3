//! A time on the database's clock: any value that a `timestamptz` can hold, without a panic.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since 1970, the precision of `timestamptz`.
///
/// sqlx decodes a `timestamptz` by adding to a date of the `time` crate. That panics for `infinity` and for years after
/// 9999, so one such row would stop every reader. This type clamps instead: arithmetic saturates, and people are shown
/// a time of the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DbTime(i64);

/// 2000-01-01, from which Postgres counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// 0001-01-01T00:00:00Z
const YEAR_1: DbTime = DbTime(-62_135_596_800_000_000);
/// 9999-12-31T23:59:59.999999Z
const END_OF_YEAR_9999: DbTime = DbTime(253_402_300_799_999_999);

impl DbTime {
    /// Earlier than any other time.
    pub(crate) const BEGINNING: Self = Self(i64::MIN);
    /// Later than any other time.
    pub(crate) const INFINITY: Self = Self(i64::MAX);

    pub(crate) const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    pub(crate) fn as_micros(self) -> i64 {
        self.0
    }

    /// The time since `earlier`, or zero if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The last multiple of `step`, counted from 1970, that is not later.
    #[must_use]
    pub(crate) fn floor(self, step: Duration) -> Self {
        self.offset_by(-self.0.rem_euclid(micros(step).max(1)))
    }

    /// RFC 3339 and the `time` crate know only these years.
    pub(crate) fn is_within_years_1_to_9999(self) -> bool {
        (YEAR_1..=END_OF_YEAR_9999).contains(&self)
    }

    fn offset_by(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// `infinity` is the highest value, `-infinity` the lowest.
    fn from_postgres_micros(us: i64) -> Self {
        Self(us).offset_by(POSTGRES_EPOCH_US)
    }

    fn as_postgres_micros(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_US)
    }
}

impl Add<Duration> for DbTime {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.offset_by(micros(duration))
    }
}

impl Sub<Duration> for DbTime {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        self.offset_by(-micros(duration))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl From<OffsetDateTime> for DbTime {
    fn from(at: OffsetDateTime) -> Self {
        Self(saturated(at.unix_timestamp_nanos().div_euclid(1_000)))
    }
}

impl From<SystemTime> for DbTime {
    fn from(at: SystemTime) -> Self {
        let epoch = Self(0);
        match at.duration_since(UNIX_EPOCH) {
            Ok(after) => epoch + after,
            Err(before) => epoch - before.duration(),
        }
    }
}

/// In UTC. A time before year 1 becomes the first microsecond of year 1, a time after year 9999 the last of year 9999.
impl From<DbTime> for OffsetDateTime {
    fn from(at: DbTime) -> Self {
        // The clamped sum is in the range of the `time` crate, so the addition can't panic.
        Self::UNIX_EPOCH + time::Duration::microseconds(at.clamp(YEAR_1, END_OF_YEAR_9999).0)
    }
}

/// RFC 3339 in UTC, clamped to the years 1 to 9999.
impl fmt::Display for DbTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from(*self).format(&Rfc3339);
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

/// RFC 3339 in UTC, clamped to the years 1 to 9999.
impl Serialize for DbTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text that Postgres writes for JSON.
impl<'de> Deserialize<'de> for DbTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("a timestamptz that is no ISO text"))
    }
}

impl Type<Postgres> for DbTime {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for DbTime {
    fn array_type_info() -> PgTypeInfo {
        OffsetDateTime::array_type_info()
    }
}

impl Encode<'_, Postgres> for DbTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.as_postgres_micros(), buffer)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

impl<'r> Decode<'r, Postgres> for DbTime {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self::from_postgres_micros(Decode::<Postgres>::decode(
                value,
            )?)),
            PgValueFormat::Text => {
                parse(value.as_str()?).ok_or_else(|| "a timestamptz that is no ISO text".into())
            }
        }
    }
}

/// Reads the text that Postgres writes with `DateStyle` ISO: `2030-01-31 12:00:00.5+00`, `4714-11-24 00:00:00+00 BC`,
/// `infinity`.
fn parse(text: &str) -> Option<DbTime> {
    match text {
        "infinity" => return Some(DbTime::from_postgres_micros(i64::MAX)),
        "-infinity" => return Some(DbTime::from_postgres_micros(i64::MIN)),
        _ => {}
    }
    let (text, is_bc) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, rest) = text.split_once([' ', 'T'])?;
    let (time, ahead_of_utc_s) = split_offset(rest)?;

    let mut date = date.split('-');
    let year = number(date.next()?, 1..=MAX_YEAR)?;
    let month = number(date.next()?, 1..=12)?;
    let day = number(date.next()?, 1..=31)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let fraction_us = match fraction.len() {
        0 => 0,
        1..=6 => number(&format!("{fraction:0<6}"), 0..=999_999)?,
        _ => return None,
    };
    let seconds = clock_s(time)?;
    if date.next().is_some() {
        return None;
    }

    let year = if is_bc { 1 - year } else { year };
    let seconds = days_since_1970(year, month, day) * 86_400 + seconds - ahead_of_utc_s;
    Some(DbTime(saturated(
        i128::from(seconds) * 1_000_000 + i128::from(fraction_us),
    )))
}

/// No `timestamptz` is that late: a later year changes nothing.
const MAX_YEAR: i64 = 1_000_000_000;

/// The time of day, and by how many seconds it is ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, 0));
    }
    let at = text.find(['+', '-'])?;
    let (time, offset) = text.split_at(at);
    let seconds = clock_s(&offset[1..])?;
    let is_behind = offset.starts_with('-');
    Some((time, if is_behind { -seconds } else { seconds }))
}

/// The seconds of `hh`, `hh:mm` or `hh:mm:ss`.
fn clock_s(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let mut seconds = number(parts.next()?, 0..=24)? * 3_600;
    for unit_s in [60, 1] {
        if let Some(part) = parts.next() {
            seconds += number(part, 0..=60)? * unit_s;
        }
    }
    parts.next().is_none().then_some(seconds)
}

fn number(text: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Only a year can have too many digits, and is then as good as the last one.
    let number = text.parse().unwrap_or(MAX_YEAR).min(MAX_YEAR);
    range.contains(&number).then_some(number)
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar, whose year 0 is 1 BC.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March end with the day that only leap years have.
    let year = if month <= 2 { year - 1 } else { year };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

fn saturated(us: i128) -> i64 {
    let bounded = us.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(bounded).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn encoded(at: DbTime) -> i64 {
        let mut buffer = PgArgumentBuffer::default();
        let is_null = Encode::<Postgres>::encode_by_ref(&at, &mut buffer).expect("encodes");
        assert!(matches!(is_null, IsNull::No));
        i64::from_be_bytes(buffer[..].try_into().expect("eight bytes"))
    }

    #[test]
    fn postgres_text_is_read_in_every_form() {
        for (text, at) in [
            ("1970-01-01 00:00:00+00", datetime!(1970-01-01 0:00 UTC)),
            ("2000-02-29 12:34:56+00", datetime!(2000-02-29 12:34:56 UTC)),
            (
                "2030-01-31 12:00:00.5+00",
                datetime!(2030-01-31 12:00:00.5 UTC),
            ),
            (
                "2030-01-31 12:00:00.000001Z",
                datetime!(2030-01-31 12:00:00.000001 UTC),
            ),
            (
                "2030-01-31 12:00:00+05:45",
                datetime!(2030-01-31 12:00 +05:45),
            ),
            ("1900-03-01 00:00:00-03", datetime!(1900-03-01 0:00 -3)),
            ("0001-01-01 00:00:00+00", datetime!(0001-01-01 0:00 UTC)),
            (
                "0001-12-31 23:59:59+00 BC",
                datetime!(0000-12-31 23:59:59 UTC),
            ),
            ("4714-11-24 00:00:00+00 BC", datetime!(-4713-11-24 0:00 UTC)),
        ] {
            assert_eq!(parse(text), Some(DbTime::from(at)), "{text}");
        }
    }

    #[test]
    fn text_beyond_the_year_9999_is_read_and_saturates() {
        let last = parse("294276-12-31 23:59:59.999999+00").expect("the last timestamptz");
        assert!(last > END_OF_YEAR_9999);
        let year_10_000 = parse("10000-01-01 00:00:00+00").expect("a time");
        assert_eq!(year_10_000, END_OF_YEAR_9999 + Duration::from_micros(1));
        let never = DbTime::from_postgres_micros(i64::MAX);
        for text in [
            "infinity",
            "999999-01-01 00:00:00+00",
            "99999999999999999999-01-01 00:00:00+00",
        ] {
            assert_eq!(parse(text), Some(never), "{text}");
        }
        let ever = parse("-infinity").expect("a time");
        assert_eq!(encoded(ever), i64::MIN);
    }

    #[test]
    fn text_that_is_no_time_is_an_error() {
        for text in [
            "",
            "now",
            "2030-01-31",
            "2030-13-01 00:00:00+00",
            "2030-01-32 00:00:00+00",
            "0000-01-01 00:00:00+00",
            "2030-01-31 12:00:00",
            "2030-01-31 12:61:00+00",
            "2030-01-31 12:00:00.1234567+00",
            "2030-01-31 12:00:00.x+00",
            "2030-01-31 12:00:00:00+00",
            "2030-01-31-01 12:00:00+00",
            "31/01/2030 12:00:00 UTC",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn people_see_times_outside_of_the_years_1_to_9999_as_their_ends() {
        let shown = |us| DbTime::from_micros(us).to_string();
        assert_eq!(shown(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(shown(i64::MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(shown(1_500_000), "1970-01-01T00:00:01.5Z");
        let json = serde_json::to_string(&DbTime::from_micros(0)).expect("JSON");
        assert_eq!(json, "\"1970-01-01T00:00:00Z\"");
    }

    proptest! {
        #[test]
        fn every_value_of_a_column_can_be_read_shown_and_written_back(raw: i64, step: u64) {
            let at = DbTime::from_postgres_micros(raw);
            OffsetDateTime::from(at).format(&Rfc3339).expect("a time for people");
            let step = Duration::from_micros(step);
            prop_assert!(at.floor(step) <= at);
            prop_assert!(at - step <= at && at <= at + step);
            let is_saturated = raw.checked_add(POSTGRES_EPOCH_US).is_none();
            prop_assert!(is_saturated || encoded(at) == raw);
        }

        #[test]
        fn times_of_people_come_back_as_they_were(us in YEAR_1.0..=END_OF_YEAR_9999.0) {
            let at = DbTime::from_micros(us);
            prop_assert!(at.is_within_years_1_to_9999());
            prop_assert_eq!(DbTime::from(OffsetDateTime::from(at)), at);
            let text = at.to_string().replace('T', " ");
            prop_assert_eq!(parse(&text), Some(at));
        }

        #[test]
        fn any_text_can_be_read(text in "[-0-9:.+ TZBC]{0,40}|\\PC{0,40}") {
            parse(&text);
        }
    }
}
