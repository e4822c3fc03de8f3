//! A claim whose answer is lost on its way.

use std::time::Duration;

use serde_json::json;

use crate::proxy::{Network, Proxy};
use testkit::{PATIENCE, World, peer};

/// The database has given the message to the worker, and the worker does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_is_lost_is_given_back_long_before_its_lease_ends_and_costs_no_attempt()
 {
    let world = World::new().await;
    let port = database_port(&world).await;
    let proxy = Proxy::start(port).await;
    let url = world
        .url
        .replace(&format!(":{port}/"), &format!(":{}/", proxy.port));
    let worker = world
        .worker()
        .env("DATABASE_URL", &url)
        .env("WORKER_LEASE", "10m")
        .start();
    world.until_idle().await;

    // The claim waits for the lane's row, and is carried out when nobody can hear of it any more.
    let mut lock = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.lane for update")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let id = world.insert(peer(json!({"at_most_once": true}))).await;
    world
        .until("a claim is under way", PATIENCE, async || {
            world
                .ask(
                    "select exists (select from pg_stat_activity where datname = current_database()
                     and application_name = 'signaling-worker' and wait_event_type = 'Lock')",
                )
                .await
        })
        .await;
    proxy.set(Network::Swallowing);
    lock.commit().await.expect("unlocked");
    world
        .until("it is claimed", PATIENCE, async || {
            world.row(id).await.claim_id.is_some()
        })
        .await;
    proxy.set(Network::Up);

    worker.until_logged("claim_released").await;
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    assert_eq!(world.seen().calls, 1);
    assert!(world.attempts(id).await.is_empty());
    let waited = row.sent_at.expect("called") - row.created_at;
    assert!(waited < Duration::from_secs(60), "it waited for {waited}");
}

async fn database_port(world: &World) -> u16 {
    let port: i32 = world.ask("select inet_server_port()").await;
    u16::try_from(port).expect("a port")
}
