//! A call of one of the schema's functions, as a prepared statement or as text.

use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::types::JsonValue;
use sqlx::{Arguments, Postgres, Type};
use uuid::Uuid;

use crate::pace::DbTime;

pub(in crate::outbox) struct Call {
    pub(super) function: &'static str,
    /// Name, type and value of each argument. None is null.
    arguments: Vec<(&'static str, String, Option<String>)>,
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
        let type_name = T::type_info().to_string();
        self.arguments.push((name, type_name, value.text()));
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
        let arguments = self.arguments.iter().enumerate();
        let arguments: Vec<String> = arguments
            .map(|(place, (name, type_name, text))| {
                let value = value(place, text.as_deref());
                format!("{name} => {value}::{type_name}")
            })
            .collect();
        let (function, arguments) = (self.function, arguments.join(", "));
        format!("select * from signaling.{function}({arguments})")
    }
}

pub(in crate::outbox) trait Text {
    /// The value as Postgres reads it. None for null.
    fn text(&self) -> Option<String>;
}

macro_rules! text_by_display {
    ($($type:ty)*) => {
        $(impl Text for $type {
            fn text(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}

text_by_display! { &str String bool i32 i64 f64 Uuid JsonValue }

impl Text for DbTime {
    fn text(&self) -> Option<String> {
        // RFC 3339 has no other years. A clamped scan position would pass over messages that are due before year 1.
        Some(if self.is_within_years_1_to_9999() {
            self.to_string()
        } else if self.as_micros() < 0 {
            "-infinity".to_owned()
        } else {
            "infinity".to_owned()
        })
    }
}

impl Text for Duration {
    fn text(&self) -> Option<String> {
        Some(format!("{} microseconds", self.as_micros()))
    }
}

impl<T: Text> Text for Option<T> {
    fn text(&self) -> Option<String> {
        self.as_ref()?.text()
    }
}

impl<T: Text> Text for Vec<T> {
    fn text(&self) -> Option<String> {
        let element = |element: &T| match element.text() {
            Some(text) => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
            None => "null".to_owned(),
        };
        let elements: Vec<String> = self.iter().map(element).collect();
        Some(format!("{{{}}}", elements.join(",")))
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
                .with("errors", &vec![Some(r#"say "no" \"#), None])
        };
        assert_eq!(
            call().prepared().0,
            "select * from signaling.hold(app => $1::text::TEXT, probe => $2::text::UUID, counts => $3::text::INT8[], errors => $4::text::TEXT[])"
        );
        assert_eq!(
            call().literal(),
            r#"select * from signaling.hold(app => E'it''s a \\ test'::TEXT, probe => null::UUID, counts => E'{"1","2"}'::INT8[], errors => E'{"say \\"no\\" \\\\",null}'::TEXT[])"#
        );
    }
}
