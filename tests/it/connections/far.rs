//! A database that is far away.

use std::time::Duration;

use harness::World;

use crate::database_proxy::{DatabaseProxy, Network};

/// More than a call may be late for its slot.
const ONE_WAY: Duration = Duration::from_millis(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sends_whose_database_is_far_away() {
    let world = World::new().await;
    let proxy = DatabaseProxy::open(&world);
    proxy.set(Network::Far(ONE_WAY));
    let mut worker = world.worker().env("DATABASE_URL", &proxy.url).start();
    worker.until_logged("worker_started").await;
    // From a lane that has nothing to do, where the first slot is at the claim's own time.
    world.insert_many(3).await;
    world.until_all_final().await;
    world.insert_many(200).await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 203);
    worker.stop().await;
}
