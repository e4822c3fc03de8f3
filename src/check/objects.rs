//! Compares the objects of the schema with the objects that this version makes.

use super::Finding;
use crate::outbox::{Damage, ObjectKind, SchemaObject, object_count};

pub(crate) const SUBJECT: &str = "objects";

const MAX_FINDINGS: usize = 20;

/// Names the objects that are missing or different. `damage` is none if the schema is newer than this worker.
pub(crate) fn objects(damage: Option<&[Damage]>) -> Vec<Finding> {
    let Some(damage) = damage else {
        let found = "not compared, because the schema is newer than this worker";
        return vec![Finding::ok(SUBJECT, found)];
    };
    if damage.is_empty() {
        let found = format!("all {} are as this version makes them", object_count());
        return vec![Finding::ok(SUBJECT, found)];
    }
    let (repairable, other): (Vec<_>, Vec<_>) = damage
        .iter()
        .partition(|damage| damage.object.kind.is_repairable());
    let mut findings: Vec<_> = migrated_again(&repairable).into_iter().collect();
    findings.extend(
        other
            .iter()
            .take(MAX_FINDINGS)
            .map(|damage| by_hand(damage)),
    );
    if other.len() > MAX_FINDINGS {
        findings.push(Finding::fail(
            SUBJECT,
            format!(
                "{} more are missing or different",
                other.len() - MAX_FINDINGS
            ),
            "restore the schema from a backup",
        ));
    }
    findings
}

/// The functions, views and triggers that `worker migrate` makes again.
fn migrated_again(damage: &[&Damage]) -> Option<Finding> {
    let names = |is_missing: bool| {
        let of_kind = damage
            .iter()
            .filter(|damage| damage.found.is_none() == is_missing);
        let names: Vec<_> = of_kind.map(|damage| damage.name()).collect();
        let how = if is_missing {
            "missing"
        } else {
            "different or disabled"
        };
        (!names.is_empty()).then(|| format!("{how}: {}", names.join(", ")))
    };
    let found: Vec<_> = [names(true), names(false)].into_iter().flatten().collect();
    (!found.is_empty()).then(|| {
        Finding::fail(
            SUBJECT,
            found.join("; "),
            "as the schema's owner, run `worker migrate`, which makes these objects again",
        )
    })
}

/// Advice for an object whose repair may lose or has to read rows, so that `worker migrate` leaves the object as it is.
fn by_hand(damage: &Damage) -> Finding {
    let name = damage.name();
    let run = |statement| format!("as the schema's owner, run `{statement}`");
    let advice = match (damage.object.kind, damage.object.statement.as_deref()) {
        (ObjectKind::Table, _) | (_, None) => "restore the schema from a backup".to_owned(),
        (ObjectKind::Column, Some(statement)) if damage.found.is_none() => {
            format!(
                "restore the column from a backup; if its values are not needed, {}",
                run(statement)
            )
        }
        (ObjectKind::Column, Some(_)) => {
            format!(
                "change the column back to {}",
                definition(Some(damage.object))
            )
        }
        (_, Some(statement)) => run(statement),
    };
    if damage.found.is_none() {
        return Finding::fail(SUBJECT, format!("the {name} is missing"), advice);
    }
    let found = format!("the {name} differs: {}", definition(damage.found.as_ref()));
    // Postgres does not use an invalid index, and a query without its index takes long in a large table.
    if damage.object.kind == ObjectKind::Index {
        return Finding::fail(SUBJECT, found, advice);
    }
    Finding::warn(SUBJECT, found, advice)
}

fn definition(object: Option<&SchemaObject>) -> &str {
    let definition = object.and_then(|object| object.definition.as_deref());
    definition.unwrap_or_default()
}
