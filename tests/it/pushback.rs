//! The API or an operator holds, slows or pauses an app. The fleet obeys, recovers by itself, and charges no message.

mod credentials;
mod failover;
mod fairness;
mod gateway;
mod operator;
mod outage;
mod peak_rate;
mod redrive;
mod throttle;

use std::collections::BTreeMap;

use simulator::Call;
use testkit::{Running, World};

/// The number of lines of an event in the logs of a fleet.
fn logged(fleet: &[Running], event: &str) -> usize {
    fleet.iter().map(|worker| worker.logged(event)).sum()
}

/// Inserts messages that were due some seconds ago. Their payloads begin with `kind`.
async fn insert_due(world: &World, kind: &str, count: u32, seconds_ago: u32) {
    world
        .execute(&format!(
            "insert into signaling.outbox (sender, destination, payload, due_at)
             select 'alice', 'user-' || n, '{kind} ' || n, now() - interval '{seconds_ago} s'
             from generate_series(1, {count}) as n"
        ))
        .await;
}

/// The number of calls of each kind. The kind is the first word of the payload.
fn kinds<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for call in calls {
        let payload = call.payload.as_deref().expect("a short one");
        let kind = payload.split(' ').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}
