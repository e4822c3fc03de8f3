//! The promise, checked for the messages of a round: by the table, by the attempt log, and by the receiving end.

use std::collections::HashMap;
use std::fmt;

use sqlx::FromRow;

use crate::harness::World;

/// What became of the messages of a round.
#[derive(Debug, Default)]
pub(crate) struct Account {
    messages: usize,
    calls: usize,
    repeated: usize,
    unknown: usize,
    busiest_second: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} messages, {} calls, {} messages taken more than once, {} unknown, {} calls in the busiest second so far",
            self.messages, self.calls, self.repeated, self.unknown, self.busiest_second
        )
    }
}

#[derive(Debug, FromRow)]
struct Message {
    payload: String,
    status: String,
    at_most_once: bool,
    /// Calls that may have had an effect without anybody's knowing, and claims that ended without a record.
    unclear: i64,
    /// Everything in the attempt log.
    logged: i64,
}

/// What the API saw of a message.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    calls: i64,
    accepted: i64,
}

/// Checks the messages whose payloads begin with `round`, among them those that are known to be committed.
pub(crate) async fn judge(world: &World, round: &str, committed: &[String]) -> Account {
    let messages: Vec<Message> = sqlx::query_as(
        "select payload, status, at_most_once,
                (select count(*) from signaling.attempt
                 where message_id = outbox.id and outcome in ('ambiguous', 'lost')) as unclear,
                (select count(*) from signaling.attempt where message_id = outbox.id) as logged
         from signaling.outbox where payload like $1 || '-%'",
    )
    .bind(round)
    .fetch_all(&world.pool)
    .await
    .expect("rows");
    let mut seen: HashMap<String, Seen> = HashMap::new();
    for call in world.simulator.ledger().calls() {
        if let Some(payload) = call.payload {
            let seen = seen.entry(payload).or_default();
            seen.calls += 1;
            seen.accepted += i64::from(call.accepted);
        }
    }

    let by_payload: HashMap<_, _> = messages
        .iter()
        .map(|message| (message.payload.as_str(), message))
        .collect();
    for payload in committed {
        assert!(
            by_payload.contains_key(payload.as_str()),
            "{payload} is gone"
        );
    }
    let mut account = Account {
        messages: messages.len(),
        ..Account::default()
    };
    for message in &messages {
        let seen = seen.get(&message.payload).copied().unwrap_or_default();
        check(message, seen);
        account.calls += usize::try_from(seen.calls).unwrap_or(0);
        account.repeated += usize::from(seen.accepted > 1);
        account.unknown += usize::from(message.status == "unknown");
    }
    let app = &world.seen().apps[crate::harness::APP_ID];
    account.busiest_second = app.worst_sliding_second;
    assert!(
        account.busiest_second <= u64::from(crate::LIMIT),
        "{round}: {account}"
    );
    account
}

/// The promise for one message.
fn check(message: &Message, seen: Seen) {
    let context = format!("{message:?}, {seen:?}");
    match message.status.as_str() {
        "message_sent" => assert!(seen.accepted >= 1, "it never arrived: {context}"),
        "unknown" => {
            assert!(message.at_most_once, "called at least once: {context}");
            assert!(message.unclear >= 1, "nothing says why: {context}");
        }
        _ => panic!("a fault that passes is no reason to fail: {context}"),
    }
    assert!(
        seen.calls <= 1 + message.logged,
        "the log does not say why it was called again: {context}"
    );
    assert!(
        seen.accepted <= 1 + message.unclear,
        "it was sent again although the outcome was known: {context}"
    );
    if message.at_most_once {
        assert!(seen.accepted <= 1, "more than once: {context}");
    }
}
