//! Installs functions, views and triggers that are missing or different.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query};

use super::functions::FUNCTIONS;
use super::migrate::LOCK_LIMITS;
use super::objects::{Damage, ObjectKind, SchemaObject, find_damage, views};
use super::privileges::{PRIVILEGES_LOCK, refresh_privileges, roles_by_kind};
use super::version::SchemaError;
use crate::outbox::one_off::{value, values};

const CLOSE: &str = "revoke all on all functions in schema signaling from public";

/// How many objects an installation has made or replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) functions: usize,
    pub(crate) views: usize,
    pub(crate) triggers: usize,
}

/// Makes or replaces the functions, views and triggers that are missing or different, in one transaction. Leaves a newer
/// schema alone: its functions serve newer workers, and this one.
///
/// Roles that may call all functions of a kind get the new ones of that kind, too, so that an update stops no worker.
///
/// # Errors
/// Where tables or columns are missing, an object of the application depends on a function that must be dropped, or a
/// trigger gets no lock on its table. Nothing is changed then.
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
    // Before roles are looked up by their functions: a function that a person has made anew is granted to nobody.
    drop_unlike(&mut transaction, &damage).await?;
    let roles = roles_by_kind(&mut transaction).await?;
    let of_kind = |kind| -> Vec<&SchemaObject> {
        let of_kind = damage.iter().filter(|damage| damage.kind() == kind);
        of_kind.map(|damage| damage.object).collect()
    };
    let functions = of_kind(ObjectKind::Function);
    let triggers = of_kind(ObjectKind::Trigger);
    // Functions call each other, so one may come before another that it names.
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
    let made = damaged_views.iter().chain(&triggers);
    statements.extend(made.filter_map(|object| object.statement.clone()));
    // Postgres lets everybody call a new function.
    statements.push(CLOSE.to_owned());
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

/// True for a view with other columns, which `create or replace` refuses. Views read each other, so all are made anew then.
fn has_other_columns(damage: &Damage) -> bool {
    let is_other = |found: &SchemaObject| found.head() != damage.object.head();
    damage.kind() == ObjectKind::View && damage.found.as_ref().is_some_and(is_other)
}

/// Drops functions of the binary's names with other arguments, another result or another owner than the binary's. `create or
/// replace` would fail, or leave a second function of the same name.
async fn drop_unlike(connection: &mut PgConnection, damage: &[Damage]) -> Result<(), sqlx::Error> {
    let functions = damage
        .iter()
        .filter(|damage| damage.kind() == ObjectKind::Function)
        .filter_map(|damage| Some((damage.object.part.clone(), damage.object.head()?.to_owned())));
    let (names, heads): (Vec<_>, Vec<_>) = functions.unzip();
    let unlike = query(
        "select format('drop function %s', pg_proc.oid::regprocedure)
         from pg_proc join unnest($1::text[], $2::text[]) as own (name, head) on proname = own.name
              left join pg_class as outbox on outbox.oid = to_regclass('signaling.outbox')
         where pronamespace = to_regnamespace('signaling')
           and (format('(%s) returns %s', pg_get_function_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid)) <> head
                or prosecdef and not pg_has_role(proowner, relowner, 'usage'))",
    );
    let statements: Vec<String> = values(connection, unlike.bind(names).bind(heads)).await?;
    for statement in statements {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}

/// Revokes the functions from `PUBLIC`. After a restore without privileges, every role could otherwise call them with the
/// rights of the schema's owner.
async fn close_open_functions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let is_open = query(
        "select exists (select from pg_proc where pronamespace = to_regnamespace('signaling')
                        and has_function_privilege('public', oid, 'execute'))",
    );
    if value(connection, is_open).await? {
        connection.execute(CLOSE).await?;
    }
    Ok(())
}
