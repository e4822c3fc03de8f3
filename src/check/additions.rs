//! Reports triggers and constraints that the application added to the outbox. They may refuse a worker's changes.

use super::Finding;
use crate::outbox::RefusedMessages;

const SUBJECT: &str = "additions";

/// Warns if the database refuses changes of messages. Otherwise lists the triggers and constraints that could refuse them.
pub(crate) fn additions(added: &[String], refused: &RefusedMessages) -> Finding {
    let names = if added.is_empty() {
        "no trigger and no constraint of the application".to_owned()
    } else {
        format!("the application added {}", added.join("; "))
    };
    if refused.messages == 0 {
        return Finding::ok(SUBJECT, names);
    }
    let reason = refused
        .reason
        .as_deref()
        .filter(|reason| !reason.is_empty());
    let newest_id = refused
        .newest_id
        .map_or_else(String::new, |id| format!(", such as {id}"));
    Finding::warn(
        SUBJECT,
        format!(
            "the database refuses to change {} messages{newest_id} ({}), so the workers do not send these messages; {names}",
            refused.messages,
            reason.unwrap_or("a trigger skips the update"),
        ),
        "correct the trigger or the constraint, then run `worker resume`, which makes the messages due at once. signaling.refused lists them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn additions_are_listed_and_only_refused_messages_warn() {
        let refused = |messages| RefusedMessages {
            messages,
            reason: Some("23514 short_ids".into()),
            newest_id: Some(7),
        };
        let added = ["trigger audit on signaling.outbox".to_owned()];
        assert_eq!(additions(&[], &refused(0)).level, Level::Ok);
        let finding = additions(&added, &refused(0));
        assert!(finding.level == Level::Ok && finding.found.contains("trigger audit"));
        let finding = additions(&added, &refused(3));
        assert_eq!(finding.level, Level::Warn);
        for phrase in ["3 messages, such as 7", "23514 short_ids", "trigger audit"] {
            assert!(finding.found.contains(phrase), "{finding:?}");
        }
    }
}
