//! Checks the promise for the messages of a round by the table, the attempt log and the ledger of the API.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use sqlx::FromRow;

use harness::{SchedulerStalls, World};

/// The outcomes of a round.
#[derive(Debug, Default)]
pub(crate) struct Account {
    messages: usize,
    calls: usize,
    repeated: usize,
    unknown: usize,
}

impl Account {
    pub(crate) fn has_no_repeats(&self) -> bool {
        self.repeated == 0 && self.unknown == 0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} messages, {} calls, {} messages taken more than once, {} unknown",
            self.messages, self.calls, self.repeated, self.unknown
        )
    }
}

#[derive(Debug, FromRow)]
struct Message {
    payload: String,
    status: String,
    at_most_once: bool,
    /// Ambiguous and lost attempts.
    unclear: i64,
    /// All entries of the attempt log.
    logged: i64,
}

/// The calls of a message in the ledger of the API.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    calls: i64,
    accepted: i64,
}

/// Checks the messages whose payloads begin with `round`. Every committed message must be among them.
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

    let found: HashSet<_> = messages.iter().map(|message| &message.payload).collect();
    for payload in committed {
        assert!(found.contains(payload), "{payload} is gone");
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
    account
}

/// Checks that no sliding second of a round holds more calls than the limit, by the rows and by the ledger of the API.
/// Returns the calls of the busiest second. After a scheduler stall, arrival times say nothing about start times.
pub(crate) async fn judge_pace(
    world: &World,
    round: &str,
    calls_before: u64,
    longest_stall: Duration,
) -> usize {
    let peak = "select signaling.peak_rate('default', min(sent_at), clock_timestamp()) from signaling.outbox";
    let sent: i64 = world.ask(peak).await;
    let limit = i64::from(crate::LIMIT);
    assert!(sent <= limit, "{round}: {sent} calls were sent in a second");

    let calls = world.simulator.ledger().calls_after(calls_before);
    let mut first = 0;
    let mut arrived = 0;
    for (index, call) in calls.iter().enumerate() {
        while call.at_us.saturating_sub(calls[first].at_us) >= 1_000_000 {
            first += 1;
        }
        arrived = arrived.max(index + 1 - first);
    }
    let is_within = u32::try_from(arrived).is_ok_and(|arrived| arrived <= crate::LIMIT);
    assert!(
        is_within || longest_stall > SchedulerStalls::TOLERABLE,
        "{round}: {arrived} calls arrived in a second, {sent} were sent, and the longest stall took {longest_stall:?}"
    );
    arrived
}

/// Checks one message.
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
