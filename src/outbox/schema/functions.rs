//! The functions of the schema: their texts, and how they get into the database.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, query};

use super::privileges::{PRIVILEGES_LOCK, refresh_privileges, roles_by_kind};
use super::version::SchemaError;
use crate::outbox::one_off::{value, values};

/// The version of the functions that this binary calls: that of `migrations/functions/protocol_version.sql`.
pub(super) const PROTOCOL_VERSION: i32 = 1;

macro_rules! functions {
    ($($name:ident)*) => {
        &[$((
            stringify!($name),
            include_str!(concat!("../../../migrations/functions/", stringify!($name), ".sql")),
        )),*]
    };
}

/// The name and the text of each function.
pub(super) const FUNCTIONS: &[(&str, &str)] = functions! {
    add_minute_stats adopt assert_duration assert_session calls can_notify cancel check_message choose_probe claim
    count_pending delete_finished delete_old end_overdue expire hold is_refusal keep_claimable next_due notify_workers
    open_lane pause peak_rate present_rate protocol_version record refresh_queue_counts refuse refuse_unknown_app
    release release_hold report_worker reserve_slot resume retire_worker retry retry_by_app sequences_behind set_due_back set_lane_back
    set_limit set_messages_back skip_while_restoring slot_rate take_free_id throttle wake_workers want_wakeup
};

const CLOSE: &str = "revoke all on all functions in schema signaling from public";

/// Creates or replaces the functions whose text has changed, in one transaction. Returns how many. Functions of a newer
/// version stay: newer workers call them, and they serve older ones.
///
/// Roles that may call all functions of a kind get the new ones of that kind, too, so that an update stops no worker.
pub(super) async fn install(connection: &mut PgConnection) -> Result<usize, SchemaError> {
    if found_version(connection).await? > Some(PROTOCOL_VERSION) {
        return Ok(0);
    }
    let mut transaction = connection.begin().await?;
    transaction.execute(PRIVILEGES_LOCK).await?;
    let roles = roles_by_kind(&mut transaction).await?;
    let (names, texts): (Vec<&str>, Vec<&str>) = FUNCTIONS.iter().copied().unzip();
    let changed = query(
        "insert into signaling.schema_functions as installed (name, text)
         select name, text from unnest($1::text[], $2::text[]) as given (name, text)
         on conflict (name) do update set text = excluded.text where installed.text <> excluded.text
         returning text",
    );
    let changed: Vec<String> = values(&mut transaction, changed.bind(names).bind(texts)).await?;
    if changed.is_empty() {
        close_open_functions(&mut transaction).await?;
        transaction.commit().await?;
        return Ok(0);
    }
    // Functions call each other, so one may come before another that it names.
    let mut script = "set local check_function_bodies = off;".to_owned();
    script.extend(changed.iter().map(String::as_str));
    // Postgres lets everybody call a new function.
    script += CLOSE;
    transaction.execute(AssertSqlSafe(script)).await?;
    refresh_privileges(&roles, &mut transaction).await?;
    transaction.commit().await?;
    Ok(changed.len())
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

/// The version of the functions in the database; none if there are none.
pub(super) async fn found_version(
    connection: &mut PgConnection,
) -> Result<Option<i32>, sqlx::Error> {
    let exists = query("select to_regproc('signaling.protocol_version') is not null");
    if !value(connection, exists).await? {
        return Ok(None);
    }
    value(connection, query("select signaling.protocol_version()")).await
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use sha2::{Digest, Sha256};

    use super::*;

    /// A change without a new version would let an older `worker migrate` bring the old text back.
    #[test]
    fn a_changed_function_has_a_new_version() {
        let mut digest = Sha256::new();
        for (name, text) in FUNCTIONS {
            digest.update(name);
            digest.update(text);
        }
        let digest = BASE64_STANDARD.encode(digest.finalize());
        let released = include_str!("../../../migrations/functions.sha256");
        let expected = format!("{PROTOCOL_VERSION} {digest}");
        assert_eq!(
            released.trim(),
            expected,
            "raise the version in protocol_version.sql and functions.rs, and write this line to migrations/functions.sha256"
        );
    }

    #[test]
    fn every_function_has_a_file_of_its_name_and_every_file_is_installed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/functions");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                let name = entry.expect("a file").file_name();
                name.to_string_lossy().trim_end_matches(".sql").to_owned()
            })
            .collect();
        files.sort();
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, names);
        for (name, text) in FUNCTIONS {
            let create = format!("create or replace function signaling.{name}(");
            assert_eq!(text.matches("create or replace").count(), 1, "{name}");
            assert!(text.contains(&create), "{name}");
            assert!(text.starts_with("-- "), "{name} says what it does");
        }
        let version = include_str!("../../../migrations/functions/protocol_version.sql");
        assert!(version.contains(&format!("select {PROTOCOL_VERSION}")));
    }
}
