//! A call of one of the schema's functions, as a prepared statement or as text.

use std::fmt::Write as _;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgTypeInfo};
use sqlx::types::JsonValue;
use sqlx::{Arguments, Postgres, Type};
use uuid::Uuid;

use crate::pace::DbTime;

pub(in crate::outbox) struct Call {
    pub(super) function: &'static str,
    /// Name, type and value of each argument. None is null.
    arguments: Vec<(&'static str, PgTypeInfo, Option<String>)>,
}

impl Call {
    pub(in crate::outbox) fn new(function: &'static str) -> Self {
        Self {
            function,
            arguments: Vec::new(),
        }
    }

    #[must_use]
    pub(in crate::outbox) fn with<T: Text + Type<Postgres>>(
        mut self,
        name: &'static str,
        value: &T,
    ) -> Self {
        let mut text = String::with_capacity(64);
        let text = value.write(&mut text).then_some(text);
        self.arguments.push((name, T::type_info(), text));
        self
    }

    /// The statement with parameters, for a direct connection.
    pub(super) fn prepared(self) -> (String, PgArguments) {
        let statement = self.statement(|place, _| format!("${}::text", place + 1));
        let mut arguments = PgArguments::default();
        for (_, _, text) in self.arguments {
            // sqlx reports a value that it can't encode; a text has none.
            arguments.add(text).ok();
        }
        (statement, arguments)
    }

    /// The statement with literals, for a pooler in transaction mode. A literal means the same with any
    /// `standard_conforming_strings`.
    pub(super) fn literal(&self) -> String {
        self.statement(|_, text| match text {
            Some(text) => format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''")),
            None => "null".to_owned(),
        })
    }

    fn statement(&self, value: impl Fn(usize, Option<&str>) -> String) -> String {
        let mut statement = String::with_capacity(1_024);
        write!(statement, "select * from signaling.{}(", self.function).ok();
        for (place, (name, type_info, text)) in self.arguments.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let value = value(place, text.as_deref());
            write!(statement, "{comma}{name} => {value}::{type_info}").ok();
        }
        statement + ")"
    }
}

pub(in crate::outbox) trait Text {
    /// Writes the value as Postgres reads it. False for null.
    fn write(&self, text: &mut String) -> bool;
}

macro_rules! text_by_display {
    ($($type:ty)*) => {
        $(impl Text for $type {
            fn write(&self, text: &mut String) -> bool {
                write!(text, "{self}").is_ok()
            }
        })*
    };
}

text_by_display! { &str String bool i32 i64 f64 Uuid JsonValue }

impl Text for DbTime {
    fn write(&self, text: &mut String) -> bool {
        // RFC 3339 has no other years. A clamped scan position would pass over messages that are due before year 1.
        if self.is_within_years_1_to_9999() {
            write!(text, "{self}").is_ok()
        } else if self.as_micros() < 0 {
            "-infinity".write(text)
        } else {
            "infinity".write(text)
        }
    }
}

impl Text for Duration {
    fn write(&self, text: &mut String) -> bool {
        // Up to version 14, Postgres reads no field above 2^31, which is 36 minutes in microseconds.
        write!(
            text,
            "{}.{:06} seconds",
            self.as_secs(),
            self.subsec_micros()
        )
        .is_ok()
    }
}

impl<T: Text> Text for Option<T> {
    fn write(&self, text: &mut String) -> bool {
        self.as_ref().is_some_and(|value| value.write(text))
    }
}

impl<T: Text> Text for Vec<T> {
    fn write(&self, text: &mut String) -> bool {
        let mut element_text = String::with_capacity(64);
        let mut separator = '{';
        for element in self {
            text.push(separator);
            separator = ',';
            element_text.clear();
            if element.write(&mut element_text) {
                text.push('"');
                for c in element_text.chars() {
                    if matches!(c, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text.push('"');
            } else {
                text.push_str("null");
            }
        }
        text.push_str(if self.is_empty() { "{}" } else { "}" });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_written_with_parameters_and_with_literals() {
        let call = || {
            Call::new("hold")
                .with("app", &r"it's a \ test")
                .with("probe", &None::<Uuid>)
                .with("counts", &vec![1_i64, 2])
                .with("ids", &Vec::<i64>::new())
                .with("errors", &vec![Some(r#"say "no" \"#), None])
                .with("lease", &Duration::from_micros(5_400_000_007))
        };
        assert_eq!(
            call().prepared().0,
            "select * from signaling.hold(app => $1::text::TEXT, probe => $2::text::UUID, counts => $3::text::INT8[], ids => $4::text::INT8[], errors => $5::text::TEXT[], lease => $6::text::INTERVAL)"
        );
        assert_eq!(
            call().literal(),
            r#"select * from signaling.hold(app => E'it''s a \\ test'::TEXT, probe => null::UUID, counts => E'{"1","2"}'::INT8[], ids => E'{}'::INT8[], errors => E'{"say \\"no\\" \\\\",null}'::TEXT[], lease => E'5400.000007 seconds'::INTERVAL)"#
        );
    }
}
