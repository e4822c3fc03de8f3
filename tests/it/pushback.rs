//! When the API pushes back, or a person does: the fleet holds still, slows down and comes back by itself, and no
//! message pays for it.

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
use sqlx::Decode;

use testkit::{PATIENCE, Running, World};

/// What an expression over the lane of the app `default` says.
async fn lane<T>(world: &World, expression: &str) -> T
where
    T: Send + Unpin + for<'r> Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    world
        .ask(&format!(
            "select {expression} from signaling.lane where app = 'default'"
        ))
        .await
}

/// Waits until there is a lane of the app `default` for which a condition holds.
async fn until_lane(world: &World, condition: &str) {
    world
        .until(condition, PATIENCE, async || {
            world
                .ask(&format!(
                    "select exists (select from signaling.lane where app = 'default' and {condition})"
                ))
                .await
        })
        .await;
}

/// How many lines of an event a fleet has logged.
fn logged(fleet: &[Running], event: &str) -> usize {
    fleet.iter().map(|worker| worker.logged(event)).sum()
}

/// Inserts so many messages, with payloads that begin with `kind`, that were due so many seconds ago.
async fn insert_due(world: &World, kind: &str, count: u32, seconds_ago: u32) {
    world
        .execute(&format!(
            "insert into signaling.outbox (sender, destination, payload, due_at)
             select 'alice', 'user-' || n, '{kind} ' || n, now() - interval '{seconds_ago} s'
             from generate_series(1, {count}) as n"
        ))
        .await;
}

/// How many of some calls are of each kind, by the first word of their payloads.
fn kinds<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for call in calls {
        let payload = call.payload.as_deref().expect("a short one");
        let kind = payload.split(' ').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}
