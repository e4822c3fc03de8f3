//! Compares the objects of the schema with the list of a freshly migrated database, `migrations/objects.json`, and installs
//! functions, views and triggers that are missing or different. Without this, a dropped trigger or a replaced function would go
//! unnoticed, because the migrations are still listed as run.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, Executor, FromRow, PgConnection, query};

use super::functions::{FUNCTIONS, PROTOCOL_VERSION};
use super::privileges::{PRIVILEGES_LOCK, is_for_people, roles_by_kind};
use super::version::{SchemaError, found_versions, migrations};
use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, values};

/// The text of a definition depends on these settings of the session.
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
    /// True if `worker migrate` creates the object again. Objects of other kinds hold rows, or make Postgres read all rows.
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
    part: String,
    relation: Option<String>,
    pub(crate) definition: Option<String>,
    /// The statement with which an operator creates the object again. None: no single statement does.
    pub(crate) statement: Option<String>,
}

impl SchemaObject {
    /// The part of a function or a view that `create or replace` can't change.
    fn head(&self) -> Option<&str> {
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
    /// only producers, operators or readers call.
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

/// Lists the first names, and counts the rest. Otherwise a lost schema would put hundreds of names into one line of the log.
pub(crate) fn list_names<'a>(damage: impl IntoIterator<Item = &'a Damage>) -> String {
    const MAX_NAMED: usize = 10;
    let mut names: Vec<_> = damage.into_iter().map(Damage::name).collect();
    let others = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let names = names.join(", ");
    match others {
        0 => names,
        _ => format!("{names} and {others} more"),
    }
}

/// Each view stands after the views that it reads.
fn views() -> impl DoubleEndedIterator<Item = &'static SchemaObject> {
    EXPECTED
        .iter()
        .filter(|object| object.kind == ObjectKind::View)
}

/// All objects of the schema, also those of the application. Changes settings of the transaction.
async fn found_objects(connection: &mut PgConnection) -> Result<Vec<SchemaObject>, sqlx::Error> {
    connection.execute(SETTINGS).await?;
    rows(connection, query(include_str!("objects.sql"))).await
}

/// The objects that are missing or different. None: the schema is newer than this binary, which can't judge it. Changes
/// settings of the transaction.
async fn find_damage(connection: &mut PgConnection) -> Result<Option<Vec<Damage>>, sqlx::Error> {
    let (tables, functions) = found_versions(connection).await?;
    let newest = migrations().last().map(|newest| newest.version);
    if tables > newest || functions > Some(PROTOCOL_VERSION) {
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

/// Revokes the functions from PUBLIC. Postgres lets every role call a new function, also after a restore without privileges.
/// Every role could then act with the privileges of the schema's owner.
const CLOSE_FUNCTIONS: &str = "do $$ begin
    if exists (select from pg_proc where pronamespace = to_regnamespace('signaling')
               and has_function_privilege('public', oid, 'execute')) then
        revoke all on all functions in schema signaling from public;
    end if; end $$";

#[derive(Debug, Default)]
pub(crate) struct Migrated {
    pub(crate) installed: usize,
    /// Objects that are missing or different, and that `worker migrate` does not repair.
    pub(crate) remaining: Vec<Damage>,
}

/// Creates or replaces the functions, views and triggers that are missing or different, in one transaction. Does not change a
/// newer schema, whose functions also serve older workers.
///
/// Roles with all functions of a kind get the new functions of that kind, too. Otherwise an update would stop workers.
pub(super) async fn install(connection: &mut PgConnection) -> Result<Migrated, SchemaError> {
    let mut transaction = connection.begin().await?;
    transaction.execute(PRIVILEGES_LOCK).await?;
    let Some(damage) = find_damage(&mut transaction).await? else {
        return Ok(Migrated::default());
    };
    let (damage, remaining): (Vec<_>, Vec<_>) = damage
        .into_iter()
        .partition(|damage| damage.object.kind.is_repairable());
    SchemaError::check_damage(&remaining)?;
    let mut objects: Vec<_> = damage.iter().map(|damage| damage.object).collect();
    // Functions call each other, in any order.
    let mut statements = vec!["set local check_function_bodies = off".to_owned()];
    if damage.iter().any(has_other_columns) {
        objects.retain(|object| object.kind != ObjectKind::View);
        objects.extend(views());
        let drop = |view: &SchemaObject| format!("drop view if exists signaling.{}", view.part);
        statements.extend(views().rev().map(drop));
    }
    statements.extend(objects.iter().filter_map(|object| statement(object)));
    if !objects.is_empty() {
        // Before the search for roles by their functions, because an operator's replacement of a function has no grants.
        drop_conflicting(&mut transaction, &objects).await?;
        let roles = roles_by_kind(&mut transaction).await?;
        let script = AssertSqlSafe(statements.join(";\n"));
        transaction.execute(script).await?;
        for (kind, role) in roles {
            let grants = AssertSqlSafe(kind.grants(&role));
            transaction.execute(grants).await?;
        }
    }
    transaction.execute(CLOSE_FUNCTIONS).await?;
    transaction.commit().await?;
    Ok(Migrated {
        installed: objects.len(),
        remaining,
    })
}

fn statement(object: &SchemaObject) -> Option<String> {
    if object.kind == ObjectKind::Function {
        let text = FUNCTIONS.iter().find(|(name, _)| *name == object.part);
        return text.map(|(_, text)| (*text).to_owned());
    }
    object.statement.clone()
}

/// True for a view with other columns, which `create or replace` refuses. The installation then drops all views, because
/// views read each other.
fn has_other_columns(damage: &Damage) -> bool {
    let is_other = |found: &SchemaObject| found.head() != damage.object.head();
    damage.object.kind == ObjectKind::View && damage.found.as_ref().is_some_and(is_other)
}

/// Drops functions with a name of this schema but other arguments, another result or another owner. `create or replace` would
/// fail, or leave a second function of the same name.
async fn drop_conflicting(
    connection: &mut PgConnection,
    objects: &[&SchemaObject],
) -> Result<(), sqlx::Error> {
    let functions = objects
        .iter()
        .filter(|object| object.kind == ObjectKind::Function);
    let (names, heads): (Vec<_>, Vec<_>) = functions
        .map(|function| (function.part.as_str(), function.head()))
        .unzip();
    let conflicting = query(include_str!("conflicting_functions.sql"));
    let statements: Vec<String> = values(connection, conflicting.bind(names).bind(heads)).await?;
    for statement in statements {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
