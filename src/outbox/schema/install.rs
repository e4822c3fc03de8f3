//! Installs functions, views and triggers that are missing or different.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query};

use super::functions::FUNCTIONS;
use super::objects::{Damage, ObjectKind, SchemaObject, find_damage, views};
use super::privileges::{PRIVILEGES_LOCK, roles_by_kind};
use super::version::SchemaError;
use crate::outbox::one_off::values;

/// Postgres lets every role call a new function, and a restore without privileges does, too. Each role could then call the
/// functions with the privileges of the schema's owner.
const CLOSE_FUNCTIONS: &str = "do $$ begin
    if exists (select from pg_proc where pronamespace = to_regnamespace('signaling')
               and has_function_privilege('public', oid, 'execute')) then
        revoke all on all functions in schema signaling from public;
    end if; end $$";

#[derive(Debug, Default)]
pub(crate) struct Migrated {
    /// A line for each migration that was run.
    pub(crate) applied: Vec<String>,
    /// How many functions, views and triggers were created or replaced.
    pub(crate) installed: usize,
    /// Objects that are missing or different, and that an installation can't repair.
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
        ..Migrated::default()
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
    let conflicting = query(
        "select format('drop function %s', pg_proc.oid::regprocedure)
         from pg_proc join unnest($1::text[], $2::text[]) as own (name, head) on proname = own.name
              left join pg_class as outbox on outbox.oid = to_regclass('signaling.outbox')
         where pronamespace = to_regnamespace('signaling')
           and (format('(%s) returns %s', pg_get_function_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid)) <> head
                or prosecdef and not pg_has_role(proowner, relowner, 'usage'))",
    );
    let statements: Vec<String> = values(connection, conflicting.bind(names).bind(heads)).await?;
    for statement in statements {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}
