//! Intervals that are no length of time are refused wherever a function takes one.

use super::{Claim, refusal, world};
use harness::World;

/// A year less 360 days is five days of Postgres' comparison, and 5 or 6 days before now by the calendar, or after.
const MIXED: &str = "-12 mons 360 days 2 min";

async fn assert_no_length_of_time(world: &World, statement: &str) {
    let error = refusal(world, statement).await;
    assert_eq!(error.code(), "22023", "{statement}");
    assert!(error.message().contains("no length of time"), "{error}");
}

#[tokio::test]
async fn an_interval_that_is_no_length_of_time_is_refused_by_each_function() {
    let world = world().await;
    let next_due = "select signaling.next_due(array['default'], array['-infinity'::timestamptz], array[0::bigint],
                        array['-infinity'::timestamptz], array[0::bigint], horizon => $horizon, poll_interval => $poll)";
    let claim = Claim::default().statement(uuid::Uuid::new_v4());
    let claim_with = |argument: &str, was: &str| {
        let given = format!("{argument} => '{was}'");
        assert!(claim.contains(&given), "{given}");
        claim.replace(&given, &format!("{argument} => $bad"))
    };
    let never_zero = [
        claim_with("lease", "30 seconds"),
        claim_with("horizon", "500 milliseconds"),
        next_due
            .replace("$horizon", "$bad")
            .replace("$poll", "'1 s'"),
        "select signaling.set_messages_back('default', $bad, true, '-infinity', 0)".into(),
        "select signaling.delete_finished(gen_random_uuid(), $bad)".into(),
        "select signaling.delete_finished(gen_random_uuid(), '1 hour', $bad)".into(),
    ];
    let perhaps_zero = [
        claim_with("lookahead", "200 milliseconds"),
        claim_with("poll_interval", "2 seconds"),
        next_due
            .replace("$horizon", "'1 s'")
            .replace("$poll", "$bad"),
        "select signaling.throttle('default', now(), $bad)".into(),
        "select signaling.refresh_queue_counts($bad)".into(),
    ];
    for (statements, also) in [(&never_zero[..], &["0"][..]), (&perhaps_zero[..], &[])] {
        for statement in statements {
            let intervals = [MIXED, "1 mon -1 day", "1 day -00:00:01", "-1 s"];
            for interval in intervals.iter().chain(also) {
                let statement = statement.replace("$bad", &format!("interval '{interval}'"));
                assert_no_length_of_time(&world, &statement).await;
            }
            let statement = statement.replace("$bad", "null::interval");
            let error = refusal(&world, &statement).await;
            assert_eq!(error.code(), "22023", "{statement}");
        }
    }
}

#[tokio::test]
async fn a_retention_with_parts_of_both_signs_deletes_nothing() {
    let world = world().await;
    world.insert_many(3).await;
    world
        .set_messages("status = 'cancelled', finished_at = now()")
        .await;
    let delete = format!("select signaling.delete_finished(gen_random_uuid(), interval '{MIXED}')");
    let error = refusal(&world, &delete).await;
    assert!(error.message().contains("retain"), "{error}");
    assert_eq!(world.count("true").await, 3);
}

#[tokio::test]
async fn a_record_with_an_interval_that_is_no_length_of_time_changes_nothing() {
    let world = world().await;
    world.insert_many(2).await;
    let claim = Claim::default().run(&world.pool).await.id;
    let record = |delays: &str, durations: &str| {
        format!(
            "select count(*) from signaling.record(
                 recorded_by => 'tester', ids => array[1, 2], claim_ids => array['{claim}', '{claim}']::uuid[],
                 original_due_at => array[now(), now()], delays => {delays}, statuses => array[null, null]::text[],
                 charged => array[true, true], sent_at => array[now(), now()], http_statuses => array[500, 500],
                 request_ids => array[null, null]::text[], errors => array['e', 'e'],
                 outcomes => array['transient', 'transient'], durations => {durations})"
        )
    };
    for interval in [MIXED, "1 mon -1 day", "1 day -00:00:01", "-1 s"] {
        let bad = format!("array['1 s', '{interval}']::interval[]");
        let good = "array['1 s', null]::interval[]";
        for statement in [record(&bad, good), record(good, &bad)] {
            assert_no_length_of_time(&world, &statement).await;
        }
    }
    assert_eq!(world.count("claim_id is not null").await, 2);
    let none = "array[null, interval '0']";
    let recorded: i64 = world.ask(&record(none, none)).await;
    assert_eq!(recorded, 2, "neither null nor zero is refused");
}
