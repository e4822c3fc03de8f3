//! A time on the database's clock: any value that a `timestamptz` can hold, without a panic.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Microseconds since 1970, the precision of `timestamptz`.
///
/// sqlx decodes a `timestamptz` by adding to a date of the `time` crate. That panics for `infinity` and for years after
/// 9999, so one such row would stop every reader. This type clamps instead: arithmetic saturates, and people see a time of
/// the years 1 to 9999.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct DbTime(i64);

/// 2000-01-01, from which Postgres counts.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// 0001-01-01T00:00:00Z
const YEAR_1: DbTime = DbTime(-62_135_596_800_000_000);
/// 9999-12-31T23:59:59.999999Z
const END_OF_YEAR_9999: DbTime = DbTime(253_402_300_799_999_999);

impl DbTime {
    pub(crate) const BEGINNING: Self = Self(i64::MIN);
    pub(crate) const INFINITY: Self = Self(i64::MAX);

    #[cfg(test)]
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
        let us = at.unix_timestamp_nanos().div_euclid(1_000);
        Self(i64::try_from(us).unwrap_or(i64::MAX))
    }
}

/// In UTC. A time before year 1 becomes the first microsecond of year 1, a time after year 9999 the last of year 9999.
impl From<DbTime> for OffsetDateTime {
    fn from(at: DbTime) -> Self {
        // The clamped sum is in the range of the `time` crate, so the addition can't panic.
        Self::UNIX_EPOCH + time::Duration::microseconds(at.clamp(YEAR_1, END_OF_YEAR_9999).0)
    }
}

impl fmt::Display for DbTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from(*self).format(&Rfc3339);
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl Serialize for DbTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
        Encode::<Postgres>::encode(self.0.saturating_sub(POSTGRES_EPOCH_US), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for DbTime {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                // `infinity` is the highest value, `-infinity` the lowest.
                let us: i64 = Decode::<Postgres>::decode(value)?;
                Ok(Self(us).offset_by(POSTGRES_EPOCH_US))
            }
            PgValueFormat::Text => Ok(Self::try_from(value.as_str()?.to_owned())?),
        }
    }
}

/// Reads the text that Postgres writes with `DateStyle` ISO, also in JSON: `2030-01-31 12:00:00.5+00`, `infinity`. The `time`
/// crate knows years of four digits, so other years saturate: `4714-11-24 00:00:00+00 BC`, `10000-01-01 00:00:00+00`.
impl TryFrom<String> for DbTime {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let format = format_description!(
            version = 2,
            "[year]-[month]-[day][first [ ] [T]][hour]:[minute]:[second][optional [.[subsecond]]]\
             [offset_hour sign:mandatory][optional [:[offset_minute][optional [:[offset_second]]]]]"
        );
        let is_number = |year: &str| year.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            None if text == "infinity" => Ok(Self::INFINITY),
            Some(("", "infinity")) => Ok(Self::BEGINNING),
            Some((year, rest)) if is_number(year) && rest.ends_with(" BC") => Ok(Self::BEGINNING),
            Some((year, _)) if is_number(year) && year.len() > 4 => Ok(Self::INFINITY),
            _ => OffsetDateTime::parse(&text, format)
                .map(Self::from)
                .map_err(|_| "a timestamptz that is no ISO text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn parse(text: &str) -> Option<DbTime> {
        DbTime::try_from(text.to_owned()).ok()
    }

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
                "2030-01-31 12:00:00.000001+00",
                datetime!(2030-01-31 12:00:00.000001 UTC),
            ),
            (
                "2030-01-31 12:00:00+05:45",
                datetime!(2030-01-31 12:00 +05:45),
            ),
            ("1900-03-01 00:00:00-03", datetime!(1900-03-01 0:00 -3)),
            ("0001-01-01 00:00:00+00", datetime!(0001-01-01 0:00 UTC)),
        ] {
            assert_eq!(parse(text), Some(DbTime::from(at)), "{text}");
        }
    }

    #[test]
    fn text_outside_of_the_years_1_to_9999_is_read_and_saturates() {
        for (text, at) in [
            ("infinity", DbTime::INFINITY),
            ("294276-12-31 23:59:59.999999+00", DbTime::INFINITY),
            ("10000-01-01 00:00:00+00", DbTime::INFINITY),
            ("0001-12-31 23:59:59+00 BC", DbTime::BEGINNING),
            ("4714-11-24 00:00:00+00 BC", DbTime::BEGINNING),
            ("-infinity", DbTime::BEGINNING),
        ] {
            assert_eq!(parse(text), Some(at), "{text}");
        }
        assert_eq!(encoded(DbTime::BEGINNING), i64::MIN);
    }

    #[test]
    fn text_that_is_no_time_is_an_error() {
        for text in [
            "",
            "now",
            "2030-01-31",
            "2030-13-01 00:00:00+00",
            "2030-01-32 00:00:00+00",
            "2030-01-31 12:00:00",
            "2030-01-31 12:61:00+00",
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
            let at = DbTime(raw).offset_by(POSTGRES_EPOCH_US);
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
            let text = at.to_string().replace('Z', "+00");
            prop_assert_eq!(parse(&text), Some(at));
        }

        #[test]
        fn any_text_can_be_read(text in "[-0-9:.+ TZBC]{0,40}|\\PC{0,40}") {
            parse(&text);
        }
    }
}
