//! Checks that the sequences of ids are ahead of their tables.

use super::Finding;
use crate::outbox::SequenceBehind;

const SUBJECT: &str = "sequences";

/// Fails if the next insert would collide with a row. A logical replica has the rows and not the positions of the
/// sequences.
pub(crate) fn sequences(behind: &[SequenceBehind]) -> Finding {
    if behind.is_empty() {
        return Finding::ok(SUBJECT, "ahead of their tables");
    }
    let found: Vec<_> = behind
        .iter()
        .map(|sequence| {
            format!(
                "{} has ids up to {}, and its sequence gives out {} next",
                sequence.table_name, sequence.newest_id, sequence.next_id
            )
        })
        .collect();
    let statements: Vec<_> = behind
        .iter()
        .map(|sequence| format!("{};", sequence.statement))
        .collect();
    Finding::fail(
        SUBJECT,
        format!("{}: inserts fail with a duplicate key", found.join("; ")),
        format!("as the schema's owner, run {}", statements.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_sequence_that_is_behind_fails_with_the_statement_to_run() {
        assert_eq!(sequences(&[]).level, Level::Ok);
        let finding = sequences(&[SequenceBehind {
            table_name: "signaling.outbox".into(),
            next_id: 7,
            newest_id: 90,
            statement: "select setval(1)".into(),
        }]);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.found.contains("up to 90") && finding.found.contains("out 7"));
        assert!(
            finding
                .advice
                .expect("advice")
                .contains("select setval(1);")
        );
    }
}
