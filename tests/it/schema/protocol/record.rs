//! `signaling.record`: the rows and attempts that it writes.

use serde_json::json;
use sqlx::PgExecutor;
use sqlx::postgres::types::PgInterval;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Claim, Claimed, attempt_lines, claimed_message, database_error, now, world};
use harness::peer;

/// One record, as the worker writes it.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: i64,
    pub(super) claim_id: Uuid,
    pub(super) original_due_at: OffsetDateTime,
    pub(super) delay: Option<Duration>,
    pub(super) status: Option<&'static str>,
    pub(super) charged: bool,
    pub(super) sent_at: Option<OffsetDateTime>,
    pub(super) http_status: Option<i32>,
    pub(super) request_id: Option<&'static str>,
    pub(super) error: Option<&'static str>,
    pub(super) outcome: Option<&'static str>,
    pub(super) fault: Option<&'static str>,
    pub(super) evidence: Option<&'static str>,
}

impl Record {
    /// The API accepted the message at the claim's time.
    pub(super) fn accepted(id: i64, claim: &Claimed) -> Self {
        Self {
            id,
            claim_id: claim.id,
            original_due_at: claim.lane.at,
            delay: None,
            status: Some("message_sent"),
            charged: true,
            sent_at: Some(claim.lane.at),
            http_status: Some(200),
            request_id: Some("request-1"),
            error: None,
            outcome: None,
            fault: None,
            evidence: None,
        }
    }

    /// The attempt failed, and the message is due again in a minute.
    pub(super) fn transient(id: i64, claim: &Claimed) -> Self {
        Self {
            delay: Some(Duration::minutes(1)),
            status: None,
            http_status: Some(500),
            error: Some("HTTP 500"),
            outcome: Some("transient"),
            fault: Some("message"),
            evidence: Some("the API accepts messages of other workers"),
            ..Self::accepted(id, claim)
        }
    }

    /// A record of a rejected call.
    pub(super) fn failed(id: i64, claim: &Claimed) -> Self {
        Self {
            delay: None,
            status: Some("failed"),
            http_status: Some(400),
            error: Some("HTTP 400"),
            outcome: Some("rejected"),
            ..Self::transient(id, claim)
        }
    }

    /// A record of a failed call that is not charged to the message.
    fn uncharged(id: i64, claim: &Claimed) -> Self {
        Self {
            charged: false,
            fault: Some("unclear"),
            evidence: Some("no other message was accepted"),
            ..Self::transient(id, claim)
        }
    }

    /// A record of a message that expires without a call.
    fn expired(id: i64, claim: &Claimed) -> Self {
        Self {
            status: Some("expired"),
            charged: false,
            sent_at: None,
            http_status: None,
            request_id: None,
            error: Some("not sent before its expires_at"),
            ..Self::accepted(id, claim)
        }
    }

    /// A record that releases the claim's first message without a call.
    fn released(id: i64, claim: &Claimed) -> Self {
        Self {
            original_due_at: claim.messages[0].original_due_at,
            status: None,
            error: None,
            ..Self::expired(id, claim)
        }
    }
}

/// Writes records. Returns the result of each, and why the database refuses it.
pub(super) async fn try_record(
    executor: impl PgExecutor<'_>,
    records: &[Record],
    one_by_one: bool,
) -> Result<Vec<(String, Option<String>)>, sqlx::Error> {
    fn column<T>(records: &[Record], value: impl Fn(&Record) -> T) -> Vec<T> {
        records.iter().map(value).collect()
    }
    let interval = |time: Duration| PgInterval::try_from(time).expect("short");
    let took = interval(Duration::microseconds(1_500));
    let rows: Vec<(i32, String, Option<String>)> = sqlx::query_as(
        "select place, result, reason
         from signaling.record(
             recorded_by => 'tester', ids => $1, claim_ids => $2, original_due_at => $3, delays => $4, statuses => $5, charged => $6,
             sent_at => $7, http_statuses => $8, request_ids => $9, errors => $10, outcomes => $11, durations => $12,
             faults => $13, evidences => $14, one_by_one => $15)
         order by place",
    )
    .bind(column(records, |record| record.id))
    .bind(column(records, |record| record.claim_id))
    .bind(column(records, |record| record.original_due_at))
    .bind(column(records, |record| record.delay.map(interval)))
    .bind(column(records, |record| record.status))
    .bind(column(records, |record| record.charged))
    .bind(column(records, |record| record.sent_at))
    .bind(column(records, |record| record.http_status))
    .bind(column(records, |record| record.request_id))
    .bind(column(records, |record| record.error))
    .bind(column(records, |record| record.outcome))
    .bind(column(records, |record| record.sent_at.map(|_| took)))
    .bind(column(records, |record| record.fault))
    .bind(column(records, |record| record.evidence))
    .bind(one_by_one)
    .fetch_all(executor)
    .await?;
    assert_eq!(rows.len(), records.len());
    let by_place = rows.into_iter().zip(1..);
    let results = by_place.map(|((place, result, reason), expected)| {
        assert_eq!(place, expected);
        (result, reason)
    });
    Ok(results.collect())
}

/// Writes records, and returns the result of each.
pub(super) async fn record(executor: impl PgExecutor<'_>, records: &[Record]) -> Vec<String> {
    let results = try_record(executor, records, false).await;
    let results = results.expect("recorded").into_iter();
    results.map(|(result, _)| result).collect()
}

#[tokio::test]
async fn an_accepted_message_is_final_and_keeps_the_claim_that_sent_it() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let before = now(&world).await;
    let results = record(&world.pool, &[Record::accepted(id, &claim)]).await;
    assert_eq!(results, ["recorded"]);
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("message_sent", 1));
    assert_eq!(row.claim_id, Some(claim.id));
    assert_eq!(row.claimed_by.as_deref(), Some("tester"));
    assert_eq!(row.sent_at, Some(claim.lane.at));
    assert_eq!(row.http_status, Some(200));
    assert_eq!(row.request_id.as_deref(), Some("request-1"));
    assert_eq!((row.error, row.due_at), (None, claim.lane.at));
    assert!(row.finished_at > Some(before));
    assert!(world.attempts(id).await.is_empty());
}

#[tokio::test]
async fn a_message_that_goes_back_belongs_to_nobody_and_logs_its_attempt() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let before = now(&world).await;
    let results = record(&world.pool, &[Record::transient(id, &claim)]).await;
    assert_eq!(results, ["recorded"]);
    let row = world.row(id).await;
    assert_eq!((&*row.status, row.attempts), ("pending", 1));
    assert_eq!((row.claim_id, row.claimed_by), (None, None));
    let recorded_at = row.due_at - Duration::minutes(1);
    assert!((before..=now(&world).await).contains(&recorded_at));
    let found = (row.error.as_deref(), row.finished_at);
    assert_eq!(found, (Some("HTTP 500"), None));
    let transient = "1 transient message charged tester";
    assert_eq!(attempt_lines(&world, id).await, [transient]);
    let details =
        "select concat_ws(', ', duration, http_status, error, evidence) from signaling.attempt";
    assert_eq!(
        world.ask::<String>(details).await,
        "00:00:00.0015, 500, HTTP 500, the API accepts messages of other workers"
    );
    let sent_at = world.attempts(id).await[0].sent_at;
    assert_eq!(sent_at, Some(claim.lane.at));
}

#[tokio::test]
async fn failed_attempts_are_numbered_and_counted_as_charged_or_uncharged() {
    let world = world().await;
    let id = world.insert(peer(json!({}))).await;
    for (charged, attempts, uncharged) in [(false, 0, 1), (true, 1, 1), (false, 1, 2)] {
        world.set_messages("due_at = now()").await;
        let claim = Claim::default().run(&world.pool).await;
        let result = if charged {
            Record::transient(id, &claim)
        } else {
            Record::uncharged(id, &claim)
        };
        assert_eq!(record(&world.pool, &[result]).await, ["recorded"]);
        let row = world.row(id).await;
        assert_eq!((row.attempts, row.uncharged), (attempts, uncharged));
    }
    let expected = [
        "1 transient unclear uncharged tester",
        "2 transient message charged tester",
        "3 transient unclear uncharged tester",
    ];
    assert_eq!(attempt_lines(&world, id).await, expected);
    // An accepted message keeps the count of what failed before.
    world.set_messages("due_at = now()").await;
    let claim = Claim::default().run(&world.pool).await;
    let message = &claim.messages[0];
    assert_eq!((message.attempts, message.uncharged), (1, 2));
    let accepted = Record::accepted(id, &claim);
    assert_eq!(record(&world.pool, &[accepted]).await, ["recorded"]);
    let row = world.row(id).await;
    assert_eq!((row.attempts, row.uncharged), (2, 2));
}

#[tokio::test]
async fn a_message_is_failing_since_the_start_of_its_first_failed_attempt() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    // A claim that ends without an attempt is no failure.
    record(&world.pool, &[Record::released(id, &claim)]).await;
    let mut first_failure = None;
    for _ in 0..2 {
        let claim = Claim::default().run(&world.pool).await;
        assert_eq!(claim.messages[0].failing_since, first_failure);
        let first_failure = first_failure.get_or_insert(claim.lane.at);
        record(&world.pool, &[Record::uncharged(id, &claim)]).await;
        assert_eq!(world.row(id).await.failing_since, Some(*first_failure));
        world.set_messages("due_at = now()").await;
    }
    let claim = Claim::default().run(&world.pool).await;
    record(&world.pool, &[Record::accepted(id, &claim)]).await;
    let row = world.row(id).await;
    let found = (&*row.status, row.failing_since);
    assert_eq!(found, ("message_sent", first_failure));
}

#[tokio::test]
async fn records_without_faults_and_evidences_are_written_too() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    world
        .execute(&format!(
            "select signaling.record('tester', '{{{id}}}', array['{}'::uuid], '{{now}}', '{{null}}', '{{null}}', '{{false}}', '{{now}}',
                                     '{{500}}', '{{null}}', '{{why}}', '{{transient}}', '{{1 second}}')",
            claim.id
        ))
        .await;
    let transient = "1 transient uncharged tester";
    assert_eq!(attempt_lines(&world, id).await, [transient]);
}

#[tokio::test]
async fn a_fault_that_is_not_known_is_refused() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let result = Record {
        fault: Some("somebody"),
        ..Record::transient(id, &claim)
    };
    let refused = try_record(&world.pool, &[result], false).await;
    let error = database_error(refused.expect_err("refused"));
    assert_eq!(error.constraint(), Some("fault_is_not_a_known_fault"));
    assert_eq!(world.row(id).await.claim_id, Some(claim.id));
}

#[tokio::test]
async fn a_message_that_expires_after_an_attempt_keeps_the_error_of_that() {
    let world = world().await;
    world.insert_many(2).await;
    world
        .set_messages(
            "sent_at = now(), attempts = 1, http_status = 500, error = 'HTTP 500' where id = 1",
        )
        .await;
    let claim = Claim::default().run(&world.pool).await;
    let records = [1, 2].map(|id| Record::expired(id, &claim));
    let found = record(&world.pool, &records).await;
    assert_eq!(found, ["recorded", "recorded"]);
    let (tried, untried) = (world.row(1).await, world.row(2).await);
    assert_eq!((&*tried.status, &*untried.status), ("expired", "expired"));
    assert_eq!(tried.error.as_deref(), Some("HTTP 500"));
    assert_eq!((tried.http_status, tried.attempts), (Some(500), 1));
    let error = untried.error.as_deref();
    assert_eq!(error, Some("not sent before its expires_at"));
    assert_eq!(untried.sent_at, None);
}

#[tokio::test]
async fn a_message_that_goes_back_without_an_attempt_is_as_it_was() {
    let world = world().await;
    let (id, claim) = claimed_message(&world).await;
    let released = Record::released(id, &claim);
    assert_eq!(record(&world.pool, &[released]).await, ["recorded"]);
    let row = world.row(id).await;
    assert_eq!((row.claim_id, row.sent_at), (None, None));
    let counts = (row.attempts, row.uncharged, row.failing_since);
    assert_eq!(counts, (0, 0, None));
    let found = (row.error, row.due_at);
    assert_eq!(found, (None, claim.messages[0].original_due_at));
    let again = Claim::default().run(&world.pool).await;
    assert!(!again.messages[0].is_retry, "it is a first attempt still");
}

#[tokio::test]
async fn no_records_are_no_error() {
    let world = world().await;
    assert!(record(&world.pool, &[]).await.is_empty());
}

#[tokio::test]
async fn one_record_that_the_table_refuses_leaves_the_others_unwritten() {
    let world = world().await;
    world.insert_many(2).await;
    let claim = Claim::default().run(&world.pool).await;
    let refused = Record {
        status: Some("nonsense"),
        ..Record::accepted(2, &claim)
    };
    let records = [Record::accepted(1, &claim), refused];
    let refused = try_record(&world.pool, &records, false).await;
    let error = database_error(refused.expect_err("refused"));
    assert_eq!(error.constraint(), Some("status_is_not_a_known_status"));
    assert_eq!(world.count("status = 'pending'").await, 2);
}
