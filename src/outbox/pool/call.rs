//! A call of one of the schema's functions, as a prepared statement or as text.

use sqlx::postgres::PgArguments;
use sqlx::postgres::types::PgInterval;
use sqlx::types::JsonValue;
use sqlx::{Arguments, Encode, Postgres, Type};
use uuid::Uuid;

use crate::pace::DbTime;

/// A call of `signaling.<function>` with named arguments.
pub(in crate::outbox) struct Call<'q> {
    function: &'static str,
    arguments: Vec<(&'static str, Box<dyn Argument + 'q>)>,
}

impl<'q> Call<'q> {
    pub(in crate::outbox) fn new(function: &'static str) -> Self {
        Self {
            function,
            arguments: Vec::new(),
        }
    }

    #[must_use]
    pub(in crate::outbox) fn with(mut self, name: &'static str, value: impl Argument + 'q) -> Self {
        self.arguments.push((name, Box::new(value)));
        self
    }

    /// The statement with parameters, for a direct connection.
    pub(super) fn prepared(self) -> (String, PgArguments) {
        let statement = self.statement(|place, _| format!("${}", place + 1));
        let mut arguments = PgArguments::default();
        for (_, value) in self.arguments {
            value.add_to(&mut arguments);
        }
        (statement, arguments)
    }

    /// The statement with literals, for a pooler in transaction mode.
    pub(super) fn literal(&self) -> String {
        self.statement(|_, value| value.literal())
    }

    fn statement(&self, value: impl Fn(usize, &dyn Argument) -> String) -> String {
        let arguments = self.arguments.iter().enumerate();
        let arguments: Vec<String> = arguments
            .map(|(place, (name, argument))| format!("{name} => {}", value(place, &**argument)))
            .collect();
        let (function, arguments) = (self.function, arguments.join(", "));
        format!("select * from signaling.{function}({arguments})")
    }
}

/// A value that sqlx can encode, and that can be written as a literal.
pub(in crate::outbox) trait Argument: Send {
    fn literal(&self) -> String;

    fn add_to(self: Box<Self>, arguments: &mut PgArguments);
}

impl<T> Argument for T
where
    T: Text + for<'e> Encode<'e, Postgres> + Type<Postgres> + Send,
{
    /// A literal that means the same with any `standard_conforming_strings`.
    fn literal(&self) -> String {
        let literal = match self.text() {
            Some(text) => format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''")),
            None => "null".to_owned(),
        };
        format!("{literal}::{}", T::type_info())
    }

    fn add_to(self: Box<Self>, arguments: &mut PgArguments) {
        // sqlx reports a value that it can't encode; none of these types has one.
        arguments.add(*self).ok();
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
        Some(match self.as_micros() {
            i64::MAX => "infinity".to_owned(),
            i64::MIN => "-infinity".to_owned(),
            _ => self.to_string(),
        })
    }
}

impl Text for PgInterval {
    fn text(&self) -> Option<String> {
        Some(format!("{} microseconds", self.microseconds))
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
                .with("app", r"it's a \ test")
                .with("probe", None::<Uuid>)
                .with("counts", vec![1_i64, 2])
                .with("errors", vec![Some(r#"say "no" \"#), None])
        };
        assert_eq!(
            call().prepared().0,
            "select * from signaling.hold(app => $1, probe => $2, counts => $3, errors => $4)"
        );
        assert_eq!(
            call().literal(),
            r#"select * from signaling.hold(app => E'it''s a \\ test'::TEXT, probe => null::UUID, counts => E'{"1","2"}'::INT8[], errors => E'{"say \\"no\\" \\\\",null}'::TEXT[])"#
        );
    }
}
