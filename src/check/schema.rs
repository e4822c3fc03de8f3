//! Judges the schema: its version, its objects, and the role's privileges.

use super::{Finding, list};
use crate::error_text::database_error_text;
use crate::outbox::{Damage, ObjectKind, SchemaError, SchemaObject};

const OBJECTS: &str = "objects";

pub(crate) fn version(checked: Result<(i64, i32), SchemaError>, user: &str) -> Finding {
    const SUBJECT: &str = "schema";
    match checked {
        Ok((tables, functions)) => Finding::ok(
            SUBJECT,
            format!("at version {tables}, with functions of version {functions}"),
        ),
        Err(SchemaError::Database(error)) => {
            let found = format!("the role can't read it: {}", database_error_text(&error));
            Finding::fail(SUBJECT, found, grant(user))
        }
        Err(SchemaError::Unusable { found, advice }) => Finding::fail(SUBJECT, found, advice),
    }
}

pub(crate) fn privileges(user: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok(
            "privileges",
            format!("{user} has the privileges of a worker"),
        );
    }
    Finding::fail(
        "privileges",
        format!("{user} lacks: {}", missing.join("; ")),
        grant(user),
    )
}

fn grant(user: &str) -> String {
    format!("as the schema's owner, run `worker grant worker {user}`")
}

/// Names the objects that are missing or different. `damage` is none if the schema is newer than this worker.
pub(crate) fn objects(damage: Option<&[Damage]>) -> Vec<Finding> {
    let Some(damage) = damage else {
        let found = "not compared, because the schema is newer than this worker";
        return vec![Finding::ok(OBJECTS, found)];
    };
    if damage.is_empty() {
        return vec![Finding::ok(OBJECTS, "all are as this version makes them")];
    }
    let (repairable, other): (Vec<_>, Vec<_>) = damage
        .iter()
        .partition(|damage| damage.object.kind.is_repairable());
    let mut findings: Vec<_> = other.into_iter().map(by_hand).collect();
    if !repairable.is_empty() {
        let found = list(repairable, |damage| match damage.found {
            None => format!("missing: {}", damage.name()),
            Some(_) => format!("different or disabled: {}", damage.name()),
        });
        let advice = "as the schema's owner, run `worker migrate`, which makes these objects again";
        findings.insert(0, Finding::fail(OBJECTS, found, advice));
    }
    findings
}

/// Advises on an object that `worker migrate` does not repair, because the repair may lose rows or has to read all of them.
fn by_hand(damage: &Damage) -> Finding {
    let (name, kind) = (damage.name(), damage.object.kind);
    let definition = |object: &SchemaObject| object.definition.clone().unwrap_or_default();
    let run = |statement| format!("as the schema's owner, run `{statement}`");
    let advice = match (kind, damage.object.statement.as_deref()) {
        (ObjectKind::Table, _) | (_, None) => "restore the schema from a backup".to_owned(),
        (ObjectKind::Column, Some(statement)) if damage.found.is_none() => format!(
            "restore the column from a backup; if its values are not needed, {}",
            run(statement)
        ),
        (ObjectKind::Column, Some(_)) => {
            format!("change the column back to {}", definition(damage.object))
        }
        (_, Some(statement)) => run(statement),
    };
    let Some(found) = &damage.found else {
        return Finding::fail(OBJECTS, format!("the {name} is missing"), advice);
    };
    let found = format!("the {name} differs: {}", definition(found));
    // Postgres does not use an invalid index, and a query without its index takes long in a large table.
    if kind == ObjectKind::Index {
        return Finding::fail(OBJECTS, found, advice);
    }
    Finding::warn(OBJECTS, found, advice)
}
