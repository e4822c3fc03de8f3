//! `worker check` reports triggers and constraints of the application.

use super::{assert_line, check, said};
use serde_json::json;
use testkit::{World, peer};

#[tokio::test]
async fn only_additions_of_the_application_are_listed() {
    let world = World::new().await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "additions", &["no trigger and no constraint"]);
    world
        .execute(
            "create function audit() returns trigger language plpgsql as $$ begin return new; end $$;
             create trigger audit_sent after update on signaling.outbox for each row execute function audit();
             create trigger audit_attempt before insert on signaling.attempt for each row execute function audit();
             create trigger only_inserts after insert on signaling.outbox for each row execute function audit();
             alter table signaling.outbox add constraint short_ids check (length(request_id) < 2);
             create unique index one_error on signaling.outbox (error) where error <> error;
             create rule quiet as on delete to signaling.attempt do also nothing;
             create table receipt (message_id bigint references signaling.outbox)",
        )
        .await;
    let text = said(check(&world), 0).await;
    let phrases = [
        "trigger audit_sent on signaling.outbox",
        "trigger audit_attempt on signaling.attempt",
        "constraint short_ids",
        "index one_error",
        "rule quiet",
        "foreign key receipt_message_id_fkey of public.receipt",
    ];
    assert_line(&text, "ok", "additions", &phrases);
    for own in [
        "only_inserts",
        "check_message",
        "outbox_pkey",
        "outbox_dedupe",
    ] {
        assert!(!text.contains(own), "{own}: {text}");
    }
}

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
