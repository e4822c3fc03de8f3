//! Two-phase commit: a producer's transaction can be prepared where Postgres allows that.

use simulator::SimulatorConfig;

use super::{INSERT, database_error, try_to};
use harness::{Postgres, World, ask, execute};

const PREPARE: &str = "prepare transaction 'of a producer'";

/// The claim of a worker that has nothing to do, and listens.
const IDLE_CLAIM: &str = "select lane->>'wakeup' from signaling.claim(
    app => 'default', claim_id => gen_random_uuid(), claimed_by => 'me', max_messages => 10, lease => '30 seconds',
    horizon => '1 second', lookahead => '0', ended_before => 'infinity', first_after_at => '-infinity',
    first_after_id => 0, retry_after_at => '-infinity', retry_after_id => 0, poll_interval => '2 seconds',
    wants_wakeup => true) where id is null";

#[tokio::test]
async fn a_producers_insert_can_be_prepared_while_a_worker_is_idle() {
    let postgres = Postgres::start_with_settings(&["max_prepared_transactions=5"]).await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    world.open_lane("default").await;
    let mut worker = world.connect().await;
    let mut producer = world.connect().await;
    let wakeup: String = ask(&mut worker, IDLE_CLAIM).await;
    assert_eq!(wakeup, "off", "the worker has to poll");
    for statement in ["begin", INSERT, PREPARE, "commit prepared 'of a producer'"] {
        execute(&mut producer, statement).await;
    }
    assert_eq!(world.count("true").await, 1);
    world.execute("delete from signaling.outbox").await;

    // An operator who sets signaling.notify gets wakeups, and then Postgres refuses to prepare.
    execute(&mut worker, "set signaling.notify = 'on'").await;
    let wakeup: String = ask(&mut worker, IDLE_CLAIM).await;
    assert_eq!(wakeup, "new");
    for statement in ["begin", INSERT] {
        execute(&mut producer, statement).await;
    }
    let refused = try_to(&mut producer, PREPARE).await;
    let refused = database_error(refused.expect_err("refused"));
    assert!(refused.message().contains("NOTIFY"), "{refused}");
    drop(world);
    postgres.cluster.stop().await.expect("stopped");
}
