//! Compares the objects of the schema with the list of a freshly migrated database, `migrations/objects.json`. Without this, a
//! dropped trigger or a replaced function would go unnoticed, because the migrations are still listed as run.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sqlx::{Executor, FromRow, PgConnection, query};

use super::functions::{PROTOCOL_VERSION, found_version};
use super::migrations::{applied, migrations};
use super::privileges::is_for_people;
use super::version::SchemaError;
use crate::outbox::Outbox;
use crate::outbox::one_off::rows;

/// Postgres writes definitions by these settings of the session.
const SETTINGS: &str = "set local search_path = pg_catalog, pg_temp; set local timezone = 'UTC';
    set local datestyle = 'ISO'; set local intervalstyle = 'postgres'; set local extra_float_digits = 1";

static EXPECTED: LazyLock<Vec<SchemaObject>> = LazyLock::new(|| {
    let text = include_str!("../../../migrations/objects.json");
    serde_json::from_str(text).expect("the file is part of the binary, and a test reads it")
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum ObjectKind {
    Function,
    Table,
    Column,
    Constraint,
    Index,
    View,
    Trigger,
}

impl ObjectKind {
    /// True if `worker migrate` creates the object again. The other kinds hold rows, or Postgres would check all rows.
    pub(crate) fn is_repairable(self) -> bool {
        matches!(self, Self::Function | Self::View | Self::Trigger)
    }
}

/// A row of `objects.sql`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub(crate) struct SchemaObject {
    /// Such as `column app of signaling.outbox`.
    pub(crate) name: String,
    pub(crate) kind: ObjectKind,
    /// The name without kind and table.
    pub(super) part: String,
    /// The table of the object.
    pub(super) relation: Option<String>,
    pub(crate) definition: Option<String>,
    /// The statement with which an operator creates the object again. None: no single statement does.
    pub(crate) statement: Option<String>,
}

impl SchemaObject {
    /// The part of a function or a view that `create or replace` can't change.
    pub(super) fn head(&self) -> Option<&str> {
        self.definition.as_deref()?.lines().next()
    }
}

/// An object that is missing or different.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) object: &'static SchemaObject,
    /// None: the object is missing.
    pub(crate) found: Option<SchemaObject>,
}

impl Damage {
    pub(crate) fn name(&self) -> &'static str {
        &self.object.name
    }

    /// True if commands, pages or functions fail without the object.
    pub(crate) fn breaks_queries(&self) -> bool {
        use ObjectKind::{Constraint, Index, Trigger};
        self.found.is_none() && !matches!(self.object.kind, Constraint | Index | Trigger)
    }

    /// True if a worker can't send or record without the object. A worker needs no views, no triggers, and no functions that
    /// only operators and producers call.
    pub(crate) fn stops_workers(&self) -> bool {
        let object = self.object;
        let is_of_trigger = || object.head() == Some("() returns trigger");
        self.breaks_queries()
            && match object.kind {
                ObjectKind::View => false,
                ObjectKind::Function => !is_of_trigger() && !is_for_people(&object.part),
                _ => true,
            }
    }
}

const MAX_NAMED: usize = 10;

/// The first names, for a message.
pub(crate) fn list_names(names: &[&str]) -> String {
    let first = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

pub(crate) fn object_count() -> usize {
    EXPECTED.len()
}

/// The schema's own constraints and indexes. Others belong to the application.
pub(crate) fn own_constraints() -> Vec<String> {
    let own = EXPECTED
        .iter()
        .filter(|object| matches!(object.kind, ObjectKind::Constraint | ObjectKind::Index));
    own.map(|object| object.part.clone()).collect()
}

/// Each view stands after the views that it reads.
pub(super) fn views() -> impl DoubleEndedIterator<Item = &'static SchemaObject> {
    EXPECTED
        .iter()
        .filter(|object| object.kind == ObjectKind::View)
}

/// All objects of the schema, also those of the application. Changes settings of the transaction.
pub(super) async fn found_objects(
    connection: &mut PgConnection,
) -> Result<Vec<SchemaObject>, sqlx::Error> {
    connection.execute(SETTINGS).await?;
    rows(connection, query(include_str!("objects.sql"))).await
}

/// The objects that are missing or different. None: the schema is newer than this binary, which can't judge it. Changes
/// settings of the transaction.
pub(super) async fn find_damage(
    connection: &mut PgConnection,
) -> Result<Option<Vec<Damage>>, sqlx::Error> {
    let newest = |(version, _): &_| migrations().iter().all(|own| own.version < *version);
    if applied(connection).await?.last().is_some_and(newest)
        || found_version(connection).await? > Some(PROTOCOL_VERSION)
    {
        return Ok(None);
    }
    Ok(Some(compare(found_objects(connection).await?)))
}

fn compare(found: Vec<SchemaObject>) -> Vec<Damage> {
    let mut found: HashMap<String, SchemaObject> = found
        .into_iter()
        .map(|object| (object.name.clone(), object))
        .collect();
    let mut lost_tables = HashSet::new();
    let mut damage = Vec::new();
    for object in &*EXPECTED {
        // A lost table is one finding, without its columns.
        let is_part = |relation: &String| lost_tables.contains(relation);
        if object.relation.as_ref().is_some_and(is_part) {
            continue;
        }
        let found = found.remove(&object.name);
        if found.is_none() && object.kind == ObjectKind::Table {
            lost_tables.insert(object.part.clone());
        }
        let is_equal = |found: &SchemaObject| {
            found.definition.is_none() || found.definition == object.definition
        };
        if !found.as_ref().is_some_and(is_equal) {
            damage.push(Damage { object, found });
        }
    }
    damage
}

impl Outbox {
    /// None: the schema is newer than this binary.
    pub(crate) async fn schema_damage(&self) -> Result<Option<Vec<Damage>>, sqlx::Error> {
        self.read(async |session| find_damage(session).await).await
    }

    /// Fails if a worker can't use the schema. Returns damage with which a worker still works, such as a dropped trigger: the
    /// database then accepts messages that the API refuses.
    pub(crate) async fn check_objects(&self) -> Result<Vec<Damage>, SchemaError> {
        self.check_schema().await?;
        let damage = self.schema_damage().await?.unwrap_or_default();
        SchemaError::check_damage(&damage)?;
        Ok(damage)
    }
}

#[cfg(test)]
mod tests;
