//! Judges the schema: its version, its objects, its ids, the role's rights, and the additions of the application.

use super::{Finding, list};
use crate::error_text::database_error_text;
use crate::outbox::{
    CollationMismatch, Damage, ObjectKind, RefusedMessages, SchemaError, SchemaObject,
    SchemaVersion, SequenceBehind, object_count,
};

const OBJECTS: &str = "objects";
const MIGRATE: &str = "run `worker migrate`";
/// `migrations/functions/take_free_id.sql` gives rows of this table a free id, so their inserts never fail.
const ATTEMPTS: &str = "signaling.attempt";

pub(crate) fn version(checked: Result<SchemaVersion, SchemaError>, user: &str) -> Finding {
    const SUBJECT: &str = "schema";
    let version = match checked {
        Ok(version) => version,
        Err(SchemaError::Database(error)) => {
            let found = format!("the role can't read it: {}", database_error_text(&error));
            return Finding::fail(SUBJECT, found, grant(user));
        }
        Err(error) => {
            let text = error.to_string();
            let (found, advice) = text.split_once(": ").unwrap_or((&text, MIGRATE));
            return Finding::fail(SUBJECT, found, advice);
        }
    };
    let newer = if version.is_newer {
        ": newer than this worker, and compatible"
    } else {
        ""
    };
    let (tables, functions) = (version.tables, version.functions);
    let found = format!("at version {tables}, with functions of version {functions}{newer}");
    Finding::ok(SUBJECT, found)
}

pub(crate) fn rights(user: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("rights", format!("{user} has the rights of a worker"));
    }
    Finding::fail(
        "rights",
        format!("{user} lacks: {}", missing.join("; ")),
        grant(user),
    )
}

pub(crate) fn grant(user: &str) -> String {
    format!("as the schema's owner, run `worker grant worker {user}`")
}

/// Names the objects that are missing or different. `damage` is none if the schema is newer than this worker.
pub(crate) fn objects(damage: Option<&[Damage]>) -> Vec<Finding> {
    let Some(damage) = damage else {
        let found = "not compared, because the schema is newer than this worker";
        return vec![Finding::ok(OBJECTS, found)];
    };
    if damage.is_empty() {
        let found = format!("all {} are as this version makes them", object_count());
        return vec![Finding::ok(OBJECTS, found)];
    }
    let (repairable, other): (Vec<_>, Vec<_>) = damage
        .iter()
        .partition(|damage| damage.object.kind.is_repairable());
    let mut findings = Vec::new();
    if !repairable.is_empty() {
        let found = list(repairable, |damage| {
            let state = if damage.found.is_none() {
                "missing"
            } else {
                "different or disabled"
            };
            format!("{state}: {}", damage.name())
        });
        findings.push(Finding::fail(
            OBJECTS,
            found,
            "as the schema's owner, run `worker migrate`, which makes these objects again",
        ));
    }
    findings.extend(other.into_iter().map(by_hand));
    findings
}

/// Advice for an object whose repair may lose or has to read rows, so that `worker migrate` leaves the object as it is.
fn by_hand(damage: &Damage) -> Finding {
    let name = damage.name();
    let run = |statement| format!("as the schema's owner, run `{statement}`");
    let advice = match (damage.object.kind, damage.object.statement.as_deref()) {
        (ObjectKind::Table, _) | (_, None) => "restore the schema from a backup".to_owned(),
        (ObjectKind::Column, Some(statement)) if damage.found.is_none() => format!(
            "restore the column from a backup; if its values are not needed, {}",
            run(statement)
        ),
        (ObjectKind::Column, Some(_)) => {
            format!(
                "change the column back to {}",
                definition(Some(damage.object))
            )
        }
        (_, Some(statement)) => run(statement),
    };
    if damage.found.is_none() {
        return Finding::fail(OBJECTS, format!("the {name} is missing"), advice);
    }
    let found = format!("the {name} differs: {}", definition(damage.found.as_ref()));
    // Postgres does not use an invalid index, and a query without its index takes long in a large table.
    if damage.object.kind == ObjectKind::Index {
        return Finding::fail(OBJECTS, found, advice);
    }
    Finding::warn(OBJECTS, found, advice)
}

fn definition(object: Option<&SchemaObject>) -> &str {
    let definition = object.and_then(|object| object.definition.as_deref());
    definition.unwrap_or_default()
}

/// Fails if the next insert collides with a row. Warns if a later one will. A logical replica has the rows and not the
/// positions of the sequences.
pub(crate) fn sequences(behind: &[SequenceBehind]) -> Finding {
    const SUBJECT: &str = "sequences";
    if behind.is_empty() {
        return Finding::ok(SUBJECT, "ahead of their tables");
    }
    let found = list(behind, |sequence| {
        let (table, next, taken) = (&sequence.table_name, sequence.next_id, sequence.taken_id);
        let effect = if table == ATTEMPTS {
            "its rows get free ids".to_owned()
        } else {
            let free = taken - next;
            format!("after {free} inserts, the insert with id {taken} fails with a duplicate key")
        };
        let newest = sequence.newest_id;
        format!("{table} has ids up to {newest}, and its sequence gives out {next} next: {effect}")
    });
    let statements = list(behind, |sequence| sequence.statement.clone());
    let advice = format!("as the schema's owner, run {statements};");
    let fails_now = |sequence: &SequenceBehind| {
        sequence.table_name != ATTEMPTS && sequence.taken_id == sequence.next_id
    };
    if behind.iter().any(fails_now) {
        Finding::fail(SUBJECT, found, advice)
    } else {
        Finding::warn(SUBJECT, found, advice)
    }
}

/// Warns if triggers or constraints of the application refuse changes of messages. Otherwise lists the additions that could
/// refuse them.
pub(crate) fn additions(added: &[String], refused: &RefusedMessages) -> Finding {
    const SUBJECT: &str = "additions";
    let names = if added.is_empty() {
        "no trigger and no constraint of the application".to_owned()
    } else {
        format!("the application added {}", added.join("; "))
    };
    let Some(newest_id) = refused.newest_id else {
        return Finding::ok(SUBJECT, names);
    };
    let reason = refused.reason.as_deref().unwrap_or_default();
    Finding::warn(
        SUBJECT,
        format!(
            "the database refuses to change {} messages, such as {newest_id} ({}), so the workers do not send these messages; {names}",
            refused.messages,
            if reason.is_empty() {
                "a trigger skips the update"
            } else {
                reason
            },
        ),
        "correct the trigger or the constraint, then run `worker resume`, which makes the messages due at once. signaling.refused lists them",
    )
}

/// Warns if a collation changed since the indexes were built. An upgrade of the operating system may change the order of
/// texts, and an index in the old order misses rows.
pub(crate) fn collations(mismatches: &[CollationMismatch]) -> Finding {
    const SUBJECT: &str = "collations";
    if mismatches.is_empty() {
        return Finding::ok(SUBJECT, "unchanged since the indexes were built");
    }
    let found = list(mismatches, |mismatch| {
        let now = mismatch.found.as_deref().unwrap_or("of no known version");
        format!(
            "{} was {} and is {now}",
            mismatch.subject, mismatch.built_with
        )
    });
    let refresh = list(mismatches, |mismatch| mismatch.refresh.clone());
    Finding::warn(
        SUBJECT,
        format!("{found}: indexes may miss messages"),
        format!(
            "as the tables' owner, run `reindex table concurrently` for outbox, lane and the other tables of signaling, then {refresh};"
        ),
    )
}
