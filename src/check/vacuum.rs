//! Checks for causes of dead rows, which slow claims down: autovacuum, old transactions, replication slots and standbys.

use super::{Finding, list};
use crate::outbox::{OldTransaction, ServerDiagnostics, VacuumHolder};
use crate::time_text;

/// An older transaction lets dead rows pile up.
const LONG_TRANSACTION_S: f64 = 300.0;
/// A transaction manager ends a prepared transaction at once. An older one is probably forgotten.
const LONG_PREPARED_S: f64 = 10.0;
/// Claims slow down if dead rows of more transactions stay.
const MANY_TRANSACTIONS: i64 = 1_000_000;

pub(crate) fn autovacuum(facts: &ServerDiagnostics) -> Finding {
    const SUBJECT: &str = "autovacuum";
    let tables = facts.tables_without_autovacuum.join(", ");
    let (off_for, advice) = if !facts.autovacuum {
        ("the whole server", "set autovacuum and track_counts to on")
    } else if !tables.is_empty() {
        (
            tables.as_str(),
            "as the tables' owner, run `alter table signaling.… reset (autovacuum_enabled)`",
        )
    } else {
        return Finding::ok(SUBJECT, "on");
    };
    let found = format!("off for {off_for}, so dead rows pile up and claims slow down");
    Finding::warn(SUBJECT, found, advice)
}

/// Warns of old transactions, which keep vacuum from removing dead rows. Postgres hides the ages of other roles' transactions
/// from some roles, so the number of transactions since then counts instead.
pub(crate) fn snapshots(open: &[OldTransaction]) -> Finding {
    const SUBJECT: &str = "snapshots";
    let is_old = |transaction: &&OldTransaction| match transaction.age_s {
        Some(age_s) if transaction.is_prepared => age_s > LONG_PREPARED_S,
        Some(age_s) => age_s > LONG_TRANSACTION_S,
        None => transaction.transactions_since > MANY_TRANSACTIONS,
    };
    let old = list(open.iter().filter(is_old), |transaction| {
        let since = match transaction.age_s {
            Some(age_s) => time_text::duration(age_s),
            None => format!("{} transactions", transaction.transactions_since),
        };
        format!("{} for {since}", transaction.holder)
    });
    if old.is_empty() {
        return Finding::ok(SUBJECT, "no transaction has been open for long");
    }
    Finding::warn(
        SUBJECT,
        format!("open: {old}"),
        "end these transactions (prepared ones by `commit prepared` or `rollback prepared`), and run long reports on a replica: until then dead rows pile up and claims slow down",
    )
}

/// Warns of slots that no receiver reads, of slots whose log the server is removing, and of holders that keep very old rows.
pub(crate) fn replication(holders: &[VacuumHolder]) -> Finding {
    const SUBJECT: &str = "replication";
    let bad = list(holders.iter().filter_map(problem), |text| text);
    if bad.is_empty() {
        return Finding::ok(SUBJECT, "no slot and no standby keeps old rows");
    }
    Finding::warn(
        SUBJECT,
        bad,
        "start the receiver of the slot, or run `select pg_drop_replication_slot('…')`; on a standby, end long queries or switch hot_standby_feedback off. Until then, dead rows or the WAL pile up",
    )
}

fn problem(holder: &VacuumHolder) -> Option<String> {
    let age = holder.row_transactions.max(holder.catalog_transactions);
    let problem = match (holder.wal_status.as_deref(), age) {
        (Some(status @ ("extended" | "unreserved" | "lost")), _) => format!("its WAL is {status}"),
        _ if !holder.is_active => "is inactive, and keeps WAL or dead rows".to_owned(),
        (_, Some(age)) if age > MANY_TRANSACTIONS => {
            format!("keeps rows for {age} transactions")
        }
        _ => return None,
    };
    Some(format!("{} {problem}", holder.holder))
}
