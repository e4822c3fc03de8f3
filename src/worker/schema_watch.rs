//! Compares the schema with the one that this version needs. Waiting does not bring back a function, table or column that a
//! person has dropped, so the worker stops and logs the reason. A dropped trigger makes no statement fail, but the database
//! then accepts messages that the API refuses, so the worker logs it.

use std::time::{Duration, Instant};

use crate::outbox::{Damage, Outbox, SchemaError, list_names};

/// The query takes Postgres about 25 ms.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
const COMPARE_UNUSABLE_EVERY: Duration = Duration::from_secs(10);
/// During a restore, objects may be missing for some seconds, which must not stop the workers. `worker migrate` replaces
/// functions in one transaction, so they are never missing.
const UNUSABLE_FOR: Duration = Duration::from_secs(20);

/// Returns the reason when the schema has been unusable for [`UNUSABLE_FOR`]. Logs other damage once.
pub(super) async fn until_unusable(outbox: &Outbox) -> SchemaError {
    let mut unusable_since = None;
    let mut logged = Vec::new();
    loop {
        // The claim loops handle a database that fails.
        if let Ok(damage) = outbox.schema_damage().await {
            let damage = damage.unwrap_or_default();
            if let Err(error) = SchemaError::check_damage(&damage) {
                let since = *unusable_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNUSABLE_FOR {
                    tracing::error!(
                        event = "schema_unusable",
                        error = %error,
                        "the worker stops, because waiting does not bring the schema back"
                    );
                    return error;
                }
            } else {
                unusable_since = None;
                let names: Vec<_> = damage.iter().map(Damage::name).collect();
                if names != logged && !names.is_empty() {
                    tracing::warn!(
                        event = "schema_differs",
                        objects = list_names(&damage),
                        "objects of the schema are missing or different: `worker check` names them, and shows what to do"
                    );
                }
                logged = names;
            }
        }
        let pause = unusable_since.map_or(COMPARE_EVERY, |_| COMPARE_UNUSABLE_EVERY);
        tokio::time::sleep(pause).await;
    }
}
