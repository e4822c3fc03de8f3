//! A call of one of the schema's functions, as a prepared statement or as text.

use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgTypeInfo};
use sqlx::types::JsonValue;
use sqlx::{Arguments, Encode, Postgres, Type};
use uuid::Uuid;

use crate::pace::DbTime;

/// A call of a function of the schema `signaling`, with named arguments. It can be written in two ways: with
/// parameters, for a prepared statement; or with literals, for the one message in which a pooler in transaction mode
/// takes a whole transaction.
pub(in crate::outbox) struct Call<'q> {
    function: &'static str,
    arguments: Vec<(&'static str, Box<dyn Argument + 'q>)>,
}

impl<'q> Call<'q> {
    /// A call of `signaling.<function>`, without arguments yet.
    pub(in crate::outbox) fn new(function: &'static str) -> Self {
        Self {
            function,
            arguments: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub(in crate::outbox) fn with(mut self, name: &'static str, value: impl Argument + 'q) -> Self {
        self.arguments.push((name, Box::new(value)));
        self
    }

    /// The text with parameters, and the arguments.
    pub(super) fn prepared(self) -> (String, PgArguments) {
        let text = self.text(|place, _| format!("${}", place + 1));
        let mut arguments = PgArguments::default();
        for (_, value) in self.arguments {
            value.add_to(&mut arguments);
        }
        (text, arguments)
    }

    /// The text with literals.
    pub(super) fn literal(&self) -> String {
        self.text(|_, value| {
            let literal = value
                .text()
                .map_or_else(|| "null".to_owned(), |text| quoted(&text));
            format!("{literal}::{}", value.postgres_type())
        })
    }

    fn text(&self, value: impl Fn(usize, &dyn Argument) -> String) -> String {
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .enumerate()
            .map(|(place, (name, argument))| {
                format!("{name} => {}", value(place, argument.as_ref()))
            })
            .collect();
        let (function, arguments) = (self.function, arguments.join(", "));
        format!("select * from signaling.{function}({arguments})")
    }
}

/// A literal that means the same whatever `standard_conforming_strings` is.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value that can be a parameter, and that Postgres also takes as text.
pub(in crate::outbox) trait Argument: Send {
    /// The value as Postgres reads it, or none for null.
    fn text(&self) -> Option<String>;

    fn postgres_type(&self) -> PgTypeInfo;

    fn add_to(self: Box<Self>, arguments: &mut PgArguments);
}

/// The two methods that are the same for each type. sqlx reports a value that it can't encode, and none of these types has
/// one.
macro_rules! as_parameter {
    () => {
        fn postgres_type(&self) -> PgTypeInfo {
            <Self as Type<Postgres>>::type_info()
        }

        fn add_to(self: Box<Self>, arguments: &mut PgArguments) {
            arguments.add(*self).ok();
        }
    };
}

macro_rules! argument {
    ($($type:ty: $value:ident => $text:expr;)*) => {
        $(impl Argument for $type {
            fn text(&self) -> Option<String> {
                let $value = self;
                Some($text)
            }

            as_parameter!();
        })*
    };
}

argument! {
    &str: value => (*value).to_owned();
    String: value => value.clone();
    bool: value => value.to_string();
    i32: value => value.to_string();
    i64: value => value.to_string();
    f64: value => value.to_string();
    Uuid: value => value.to_string();
    DbTime: value => match value.as_micros() {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        _ => value.to_string(),
    };
    JsonValue: value => value.to_string();
    PgInterval: value => format!("{} microseconds", value.microseconds);
}

impl<T: Argument> Argument for Option<T>
where
    Self: for<'e> Encode<'e, Postgres> + Type<Postgres>,
{
    fn text(&self) -> Option<String> {
        self.as_ref()?.text()
    }

    as_parameter!();
}

impl<T: Argument> Argument for Vec<T>
where
    Self: for<'e> Encode<'e, Postgres> + Type<Postgres>,
{
    fn text(&self) -> Option<String> {
        let elements: Vec<String> = self
            .iter()
            .map(|element| {
                element.text().map_or_else(
                    || "null".to_owned(),
                    |text| {
                        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
                        format!("\"{escaped}\"")
                    },
                )
            })
            .collect();
        Some(format!("{{{}}}", elements.join(",")))
    }

    as_parameter!();
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
