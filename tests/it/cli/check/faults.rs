//! `worker check` reports refused messages and sequences.

use super::{assert_line, check, said};
use serde_json::json;
use testkit::{World, peer};

#[tokio::test]
async fn refused_messages_warn() {
    let world = World::new().await;
    let id = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "insert into signaling.refused values ('default', {id}, now(), 1, now() + interval '1 minute', '23514', 'short_ids')"
        ))
        .await;
    let text = said(check(&world), 0).await;
    let phrases = ["1 messages", "23514 short_ids", "worker resume"];
    assert_line(&text, "warn", "refused", &phrases);
}

#[tokio::test]
async fn a_sequence_that_is_behind_is_found_with_the_failing_insert() {
    let world = World::new().await;
    for (free, code, level) in [(0, 1, "FAIL"), (3, 0, "warn")] {
        world
            .execute(&format!(
                "delete from signaling.outbox;
                 insert into signaling.outbox (id, sender, destination, payload) overriding system value
                 values (7 + {free}, 'a', 'b', 'c');
                 select setval('signaling.outbox_id_seq', 7, false)"
            ))
            .await;
        let text = said(check(&world), code).await;
        let taken = 7 + free;
        let effect = format!("after {free} inserts, the insert with id {taken} fails");
        let phrases = [&effect, "as the schema's owner, run select setval("];
        assert_line(&text, level, "sequences", &phrases);
    }
    world
        .execute(
            "select setval('signaling.outbox_id_seq', 20);
             insert into signaling.attempt (message_id, attempt, outcome) select id, 1, 'lost' from signaling.outbox;
             select setval('signaling.attempt_id_seq', 1, false)",
        )
        .await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "warn", "sequences", &["its rows get free ids"]);
}
