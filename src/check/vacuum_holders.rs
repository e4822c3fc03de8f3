//! Checks for replication slots, standbys and hidden sessions that keep dead rows from being cleaned up.

use super::Finding;
use crate::outbox::{OldTransaction, ServerDiagnostics, VacuumHolder};

const SUBJECT: &str = "replication";

/// Claims slow down if dead rows of more transactions stay.
const MANY_TRANSACTIONS: i64 = 1_000_000;

/// Warns of slots that no receiver reads, of slots whose log the server is removing, and of holders that keep very old rows.
pub(crate) fn vacuum_holders(holders: &[VacuumHolder]) -> Finding {
    let bad: Vec<_> = holders.iter().filter_map(problem).collect();
    if bad.is_empty() {
        return Finding::ok(SUBJECT, "no slot and no standby keeps old rows");
    }
    Finding::warn(
        SUBJECT,
        bad.join("; "),
        "start the receiver of the slot, or run `select pg_drop_replication_slot('…')`; on a standby, end long queries or switch hot_standby_feedback off. Until then, dead rows or the WAL pile up",
    )
}

fn problem(holder: &VacuumHolder) -> Option<String> {
    let mut parts = Vec::new();
    if !holder.is_active {
        parts.push("is inactive".to_owned());
    }
    let is_old =
        |transactions: Option<i64>| transactions.is_some_and(|age| age > MANY_TRANSACTIONS);
    for (transactions, rows) in [
        (holder.row_transactions, "rows"),
        (holder.catalog_transactions, "rows of the system catalogs"),
    ] {
        if let Some(age) = transactions
            && (!holder.is_active || is_old(transactions))
        {
            parts.push(format!("keeps {rows} for {age} transactions"));
        }
    }
    match holder.wal_status.as_deref() {
        Some(status @ ("extended" | "unreserved" | "lost")) => {
            parts.push(format!("its WAL is {status}"));
        }
        Some(_) if !holder.is_active => parts.push("keeps WAL".to_owned()),
        Some(_) | None => {}
    }
    (!parts.is_empty()).then(|| format!("{} {}", holder.holder, parts.join(", ")))
}

/// Warns if the ages of transactions are hidden from the role, so that the check can't judge them.
pub(crate) fn hidden_sessions(
    server: &ServerDiagnostics,
    open: &[OldTransaction],
) -> Option<Finding> {
    let hidden = open
        .iter()
        .filter(|transaction| transaction.age_s.is_none());
    let count = hidden.count();
    (!server.sees_all_sessions && count > 0).then(|| {
        Finding::warn(
            "snapshots",
            format!(
                "{} may not see the age of other roles' transactions, and {count} are open",
                server.user
            ),
            format!(
                "as a superuser, run `grant pg_monitor to {}`, and check again",
                server.user
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn slot() -> VacuumHolder {
        VacuumHolder {
            holder: "replication slot 'copy'".into(),
            is_active: true,
            row_transactions: None,
            catalog_transactions: Some(20),
            wal_status: Some("reserved".into()),
        }
    }

    #[test]
    fn an_inactive_old_or_endangered_slot_warns() {
        assert_eq!(vacuum_holders(&[slot()]).level, Level::Ok);
        let inactive = VacuumHolder {
            is_active: false,
            ..slot()
        };
        let old = VacuumHolder {
            row_transactions: Some(1_000_001),
            ..slot()
        };
        let lost = VacuumHolder {
            wal_status: Some("unreserved".into()),
            ..slot()
        };
        for (holder, phrase) in [
            (
                inactive,
                "is inactive, keeps rows of the system catalogs for 20 transactions, keeps WAL",
            ),
            (old, "keeps rows for 1000001 transactions"),
            (lost, "WAL is unreserved"),
        ] {
            let finding = vacuum_holders(&[slot(), holder]);
            assert_eq!(finding.level, Level::Warn);
            assert!(finding.found.contains(phrase), "{finding:?}");
        }
    }
}
