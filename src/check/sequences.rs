//! Checks that the sequences of ids are ahead of their tables. A logical replica has the rows and not the positions of the
//! sequences.

use super::{Finding, Level};
use crate::outbox::SequenceBehind;

const SUBJECT: &str = "sequences";
/// Rows of this table get a free id by themselves: see `migrations/functions/take_free_id.sql`.
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
    let finding = Finding::warn(
        SUBJECT,
        found.join("; "),
        format!("as the schema's owner, run {}", statements.join(" ")),
    );
    let fails_now = |sequence: &SequenceBehind| {
        sequence.table_name != ATTEMPTS && sequence.taken_id == sequence.next_id
    };
    Finding {
        level: if behind.iter().any(fails_now) {
            Level::Fail
        } else {
            Level::Warn
        },
        ..finding
    }
}

fn found(sequence: &SequenceBehind) -> String {
    let SequenceBehind {
        table_name,
        next_id,
        taken_id,
        newest_id,
        ..
    } = sequence;
    let place = format!(
        "{table_name} has ids up to {newest_id}, and its sequence gives out {next_id} next"
    );
    if table_name == ATTEMPTS {
        return format!("{place}: its rows get free ids all the same");
    }
    match taken_id - next_id {
        0 => format!("{place}: inserts fail now, with a duplicate key"),
        1 => format!(
            "{place}: one insert succeeds, and the insert that gets id {taken_id} fails with a duplicate key"
        ),
        free => format!(
            "{place}: {free} inserts succeed, and the insert that gets id {taken_id} fails with a duplicate key"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "one insert succeeds, and the insert that gets id 8 fails",
            ),
            (
                behind("signaling.outbox", 7, 80),
                Level::Warn,
                "73 inserts succeed, and the insert that gets id 80 fails",
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
