//! A claim whose response is lost.

use std::time::Duration;

use serde_json::json;

use crate::database_proxy::{DatabaseProxy, Network};
use harness::World;

/// The database has claimed the message for the worker, and the worker does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_response_is_lost_is_released_early_and_costs_no_attempt() {
    let world = World::new().await;
    let proxy = DatabaseProxy::open(&world);
    let worker = world
        .worker()
        .env("DATABASE_URL", &proxy.url)
        .env("WORKER_LEASE", "10m")
        .start();

    // Postgres executes the claim while the network drops its response.
    let (lock, id) = world.block_claim(json!({"at_most_once": true})).await;
    proxy.set(Network::Swallowing);
    lock.commit().await.expect("unlocked");
    world.until_count(1, "claim_id is not null").await;
    proxy.set(Network::Up);

    worker.until_logged("claim_released").await;
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    assert_eq!(world.seen().calls, 1);
    assert!(world.attempts(id).await.is_empty());
    let waited = row.sent_at.expect("called") - row.created_at;
    assert!(waited < Duration::from_secs(60), "it waited for {waited}");
}
