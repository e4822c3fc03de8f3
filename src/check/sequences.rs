//! Checks that the sequences of ids are ahead of their tables. A logical replica has the rows and not the positions of the
//! sequences.

use super::Finding;
use crate::outbox::SequenceBehind;

const SUBJECT: &str = "sequences";
/// `migrations/functions/take_free_id.sql` gives rows of this table a free id, so their inserts never fail.
const ATTEMPTS: &str = "signaling.attempt";

/// Fails if the next insert collides with a row. Warns if a later one will.
pub(crate) fn sequences(behind: &[SequenceBehind]) -> Finding {
    if behind.is_empty() {
        return Finding::ok(SUBJECT, "ahead of their tables");
    }
    let found: Vec<_> = behind.iter().map(found).collect();
    let statements: Vec<_> = behind
        .iter()
        .map(|sequence| format!("{};", sequence.statement))
        .collect();
    let fails_now = behind
        .iter()
        .any(|sequence| sequence.table_name != ATTEMPTS && sequence.taken_id == sequence.next_id);
    let finding = if fails_now {
        Finding::fail
    } else {
        Finding::warn
    };
    finding(
        SUBJECT,
        found.join("; "),
        format!("as the schema's owner, run {}", statements.join(" ")),
    )
}

fn found(sequence: &SequenceBehind) -> String {
    let (table, next, taken) = (&sequence.table_name, sequence.next_id, sequence.taken_id);
    let effect = match taken - next {
        _ if table == ATTEMPTS => "its rows get free ids".to_owned(),
        0 => "inserts fail now, with a duplicate key".to_owned(),
        free => {
            format!("after {free} inserts, the insert with id {taken} fails with a duplicate key")
        }
    };
    format!(
        "{table} has ids up to {}, and its sequence gives out {next} next: {effect}",
        sequence.newest_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn behind(table_name: &str, next_id: i64, taken_id: i64) -> SequenceBehind {
        SequenceBehind {
            table_name: table_name.into(),
            next_id,
            taken_id,
            newest_id: 90,
            statement: "select setval(1)".into(),
        }
    }

    #[test]
    fn a_sequence_that_is_behind_is_found_with_when_inserts_fail_and_what_to_run() {
        assert_eq!(sequences(&[]).level, Level::Ok);
        for (sequence, level, phrase) in [
            (behind("signaling.outbox", 7, 7), Level::Fail, "fail now"),
            (
                behind("signaling.outbox", 7, 8),
                Level::Warn,
                "after 1 inserts, the insert with id 8 fails",
            ),
            (
                behind("signaling.outbox", 7, 80),
                Level::Warn,
                "after 73 inserts, the insert with id 80 fails",
            ),
            (behind("signaling.attempt", 7, 7), Level::Warn, "free ids"),
        ] {
            let finding = sequences(&[sequence]);
            assert_eq!(finding.level, level, "{finding:?}");
            for phrase in [phrase, "up to 90", "out 7 next"] {
                assert!(finding.found.contains(phrase), "{finding:?}");
            }
            let advice = finding.advice.expect("advice");
            assert!(advice.contains("select setval(1);"), "{advice}");
        }
        let both = [
            behind("signaling.attempt", 1, 1),
            behind("signaling.outbox", 7, 7),
        ];
        assert_eq!(sequences(&both).level, Level::Fail);
    }
}
