//! Checks that the collations still have the versions with which the schema's indexes were built. An upgrade of the operating
//! system may change the order of texts, and an index in the old order misses rows.

use super::Finding;
use crate::outbox::CollationMismatch;

const SUBJECT: &str = "collations";

pub(crate) fn collations(mismatches: &[CollationMismatch]) -> Finding {
    if mismatches.is_empty() {
        return Finding::ok(SUBJECT, "unchanged since the indexes were built");
    }
    let found: Vec<_> = mismatches
        .iter()
        .map(|mismatch| {
            let now = mismatch.found.as_deref().unwrap_or("of no known version");
            format!(
                "{} was {} and is {now}",
                mismatch.subject, mismatch.built_with
            )
        })
        .collect();
    let refresh: Vec<_> = mismatches
        .iter()
        .map(|mismatch| format!("{};", mismatch.refresh))
        .collect();
    Finding::warn(
        SUBJECT,
        format!("{}: indexes may miss messages", found.join("; ")),
        format!(
            "as the tables' owner, run `reindex table concurrently` for outbox, lane and the other tables of signaling, then {}",
            refresh.join(" ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn another_version_of_a_collation_is_warned_of_with_the_statement_to_run() {
        assert_eq!(collations(&[]).level, Level::Ok);
        let finding = collations(&[CollationMismatch {
            subject: "collation pg_catalog.de".into(),
            built_with: "1".into(),
            found: Some("2".into()),
            refresh: "alter collation pg_catalog.de refresh version".into(),
        }]);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.found.contains("was 1 and is 2"));
        assert!(
            finding
                .advice
                .expect("advice")
                .contains("pg_catalog.de refresh")
        );
    }
}
