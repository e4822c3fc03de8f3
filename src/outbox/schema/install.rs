//! Installs functions, views and triggers that are missing or different.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query};

use super::functions::FUNCTIONS;
use super::migrate::LOCK_LIMITS;
use super::objects::{Damage, ObjectKind, SchemaObject, find_damage, views};
use super::privileges::{PRIVILEGES_LOCK, refresh_privileges, roles_by_kind};
use super::version::SchemaError;
use crate::outbox::one_off::{value, values};

const REVOKE_FROM_PUBLIC: &str = "revoke all on all functions in schema signaling from public";

/// Numbers of objects that an installation has created or replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) functions: usize,
    pub(crate) views: usize,
    pub(crate) triggers: usize,
}

/// Creates or replaces the functions, views and triggers that are missing or different, in one transaction. Does not change a
/// newer schema, whose functions also serve older workers.
///
/// Roles with all functions of a kind get the new functions of that kind, too. Otherwise an update would stop workers.
pub(super) async fn install(connection: &mut PgConnection) -> Result<Installed, SchemaError> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_LIMITS).await?;
    transaction.execute(PRIVILEGES_LOCK).await?;
    let Some(mut damage) = find_damage(&mut transaction).await? else {
        return Ok(Installed::default());
    };
    damage.retain(|damage| damage.kind().is_repairable() || damage.breaks_queries());
    let lost: Vec<_> = damage
        .iter()
        .filter(|damage| !damage.kind().is_repairable())
        .cloned()
        .collect();
    SchemaError::check_damage(&lost)?;
    if damage.is_empty() {
        close_open_functions(&mut transaction).await?;
        transaction.commit().await?;
        return Ok(Installed::default());
    }
    // Before the search for roles by their functions, because an operator's replacement of a function has no grants.
    drop_conflicting(&mut transaction, &damage).await?;
    let roles = roles_by_kind(&mut transaction).await?;
    let of_kind = |kind| -> Vec<&SchemaObject> {
        let objects = damage.iter().map(|damage| damage.object);
        objects.filter(|object| object.kind == kind).collect()
    };
    let functions = of_kind(ObjectKind::Function);
    let triggers = of_kind(ObjectKind::Trigger);
    // Functions call each other, in any order.
    let mut statements = vec!["set local check_function_bodies = off".to_owned()];
    for function in &functions {
        let texts = FUNCTIONS.iter().filter(|(name, _)| *name == function.part);
        statements.extend(texts.map(|(_, text)| (*text).to_owned()));
    }
    let damaged_views = if damage.iter().any(has_other_columns) {
        let drops = views().rev();
        statements.extend(drops.map(|view| format!("drop view if exists signaling.{}", view.part)));
        views().collect()
    } else {
        of_kind(ObjectKind::View)
    };
    let created = damaged_views.iter().chain(&triggers);
    statements.extend(created.filter_map(|object| object.statement.clone()));
    // Postgres lets every role call a new function.
    statements.push(REVOKE_FROM_PUBLIC.to_owned());
    let script = statements.join(";\n");
    transaction.execute(AssertSqlSafe(script)).await?;
    refresh_privileges(&roles, &mut transaction).await?;
    transaction.commit().await?;
    Ok(Installed {
        functions: functions.len(),
        views: damaged_views.len(),
        triggers: triggers.len(),
    })
}

/// True for a view with other columns, which `create or replace` refuses. The installation then drops all views, because
/// views read each other.
fn has_other_columns(damage: &Damage) -> bool {
    let is_other = |found: &SchemaObject| found.head() != damage.object.head();
    damage.kind() == ObjectKind::View && damage.found.as_ref().is_some_and(is_other)
}

/// Drops functions with a name of this schema but other arguments, another result or another owner. `create or replace` would
/// fail, or leave a second function of the same name.
async fn drop_conflicting(
    connection: &mut PgConnection,
    damage: &[Damage],
) -> Result<(), sqlx::Error> {
    let functions = damage
        .iter()
        .filter(|damage| damage.kind() == ObjectKind::Function)
        .filter_map(|damage| Some((damage.object.part.clone(), damage.object.head()?.to_owned())));
    let (names, heads): (Vec<_>, Vec<_>) = functions.unzip();
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

/// After a restore without privileges, every role could otherwise call the functions with the privileges of the schema's
/// owner.
async fn close_open_functions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let is_open = query(
        "select exists (select from pg_proc where pronamespace = to_regnamespace('signaling')
                        and has_function_privilege('public', oid, 'execute'))",
    );
    if value(connection, is_open).await? {
        connection.execute(REVOKE_FROM_PUBLIC).await?;
    }
    Ok(())
}
