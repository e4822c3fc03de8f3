//! Compares the schema with this version's while the worker runs. A function, table or column that a person has dropped does
//! not come back by waiting, so the worker ends and says what to do. A trigger that was dropped makes nothing fail: then the
//! database accepts messages that the API refuses, and only this shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::outbox::{Damage, Outbox, SchemaError, list_names};

/// How often the schema is compared. The query takes about 10 ms.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// How long a schema has to be unusable to end the worker. `worker migrate` replaces functions in one transaction, so they
/// are never missing meanwhile. A restore needs longer than a transaction.
const UNUSABLE_FOR: Duration = Duration::from_secs(20);

/// Returns when the schema has been unusable for [`UNUSABLE_FOR`], and why. Logs other damage once.
pub(super) async fn until_unusable(outbox: Arc<Outbox>) -> SchemaError {
    let mut unusable_since: Option<Instant> = None;
    let mut logged = Vec::new();
    loop {
        let damage = outbox.schema_damage().await;
        let damage = damage.map(Option::unwrap_or_default);
        let checked = damage.map(|damage| SchemaError::check_damage(&damage).map(|()| damage));
        match checked {
            Ok(Ok(damage)) => {
                unusable_since = None;
                let names: Vec<_> = damage.iter().map(Damage::name).collect();
                if names != logged && !names.is_empty() {
                    tracing::warn!(
                        event = "schema_differs",
                        objects = list_names(&names),
                        "objects of the schema are missing or different: `worker check` says which, and what to do"
                    );
                }
                logged = names;
            }
            // The claim loops deal with a database that fails.
            Err(_) => {}
            Ok(Err(error)) => {
                let since = unusable_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNUSABLE_FOR {
                    tracing::error!(
                        event = "schema_unusable",
                        error = %error,
                        "the worker ends, because waiting does not bring the schema back"
                    );
                    return error;
                }
            }
        }
        tokio::time::sleep(COMPARE_EVERY).await;
    }
}
