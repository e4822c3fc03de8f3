//! Recognises database errors that the application's own triggers, functions and constraints cause, and decides which of
//! their messages may repeat a payload.

use std::fmt::{self, Write};

use sqlx::postgres::PgDatabaseError;

/// SQLSTATE of an exception that was raised without another one. The schema's own functions give others.
const RAISED: &str = "P0001";
/// The server's routines that write a message which a function's author has composed.
const RAISING_ROUTINES: [&str; 2] = ["exec_stmt_raise", "exec_stmt_assert"];
/// The longest name of a function, with the types of its arguments, that a line shows.
const MAX_NAME_BYTES: usize = 200;
const PL_PGSQL: &str = "PL/pgSQL function ";

/// An error that the application's part of the database causes.
#[derive(Debug)]
pub(super) struct ApplicationError<'a> {
    error: &'a PgDatabaseError,
    /// The innermost function of the application. None if a constraint refuses the row.
    function: Option<&'a str>,
    pub(super) may_show_payload: bool,
}

impl<'a> ApplicationError<'a> {
    /// None if the schema's own functions have raised the error, or if nothing of the application takes part in it.
    pub(super) fn of(error: &'a PgDatabaseError) -> Option<Self> {
        let is_raised = error.code() == RAISED
            || error
                .routine()
                .is_some_and(|routine| RAISING_ROUTINES.contains(&routine));
        if is_raised && error.code() != RAISED && is_raised_by_schema(error) {
            return None;
        }
        let function = lines(error).find_map(function_of_application);
        let is_constraint = error.constraint().is_some() || error.table().is_some();
        let may_show_payload = is_raised
            || lines(error).any(is_other_language)
            || quotes_a_value(error)
            || function.is_some() && error.code() == "42601";
        (function.is_some() || is_constraint || may_show_payload).then_some(Self {
            error,
            function,
            may_show_payload,
        })
    }

    /// The SQLSTATE, with the table and the constraint that the server names.
    pub(super) fn facts(&self) -> String {
        let mut facts = format!("SQLSTATE {}", self.error.code());
        if let Some(table) = self.error.table() {
            let schema = self.error.schema().unwrap_or_default();
            // Writing into a string does not fail.
            write!(facts, ", table {schema}.{table}").ok();
        }
        if let Some(constraint) = self.error.constraint() {
            write!(facts, ", constraint {constraint}").ok();
        }
        facts
    }
}

impl fmt::Display for ApplicationError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            Some(function) => write!(formatter, "the application's function {function}"),
            None => formatter.write_str("a trigger, a function or a constraint"),
        }
    }
}

/// The context of an error, the innermost call first. A line that is not about a function may quote a statement.
fn lines(error: &PgDatabaseError) -> impl Iterator<Item = &str> {
    error.r#where().unwrap_or_default().lines()
}

/// True if the statement was within a function of the schema. Postgres names functions in the language SQL without their
/// schema, and the application has none that reads these tables with other rights.
pub(super) fn is_of_schema(error: &PgDatabaseError) -> bool {
    lines(error).any(|line| {
        line.starts_with("SQL function ")
            || line
                .strip_prefix(PL_PGSQL)
                .is_some_and(|function| function.starts_with("signaling."))
    })
}

/// The argument types of an application's function may name the schema, so only its beginning counts.
fn is_raised_by_schema(error: &PgDatabaseError) -> bool {
    let innermost = lines(error)
        .next()
        .and_then(|line| line.strip_prefix(PL_PGSQL));
    innermost.is_some_and(|function| function.starts_with("signaling."))
}

/// The name of the application's function in a line like `PL/pgSQL function shop.audit() line 3 at RAISE`.
fn function_of_application(line: &str) -> Option<&str> {
    let (language, function) = line.split_once(" function ")?;
    let name = function.split(" line ").next()?;
    let is_function = language.starts_with("PL/") && name.len() <= MAX_NAME_BYTES;
    (is_function && !name.starts_with("signaling.")).then_some(name)
}

/// Another language may raise any text with any SQLSTATE and any routine.
fn is_other_language(line: &str) -> bool {
    line.starts_with("PL/") && !line.starts_with(PL_PGSQL)
}

/// Errors about data quote the value, as in `invalid input syntax for type integer: "…"`. 22023 quotes a setting's name.
fn quotes_a_value(error: &PgDatabaseError) -> bool {
    let code = error.code();
    code.starts_with("22") && code != "22023" && error.message().contains('"')
}
