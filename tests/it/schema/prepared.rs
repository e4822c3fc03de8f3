//! Two-phase commit: a producer's transaction can be prepared where Postgres allows that.

use simulator::SimulatorConfig;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::{Postgres, World};

const INSERT: &str =
    "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')";
const PREPARE: &str = "prepare transaction 'of a producer'";

/// The claim of a worker that has nothing to do, and listens.
const IDLE_CLAIM: &str = "select nullif(lane->>'wakeup', 'off') from signaling.claim(
    app => 'default', claim_id => gen_random_uuid(), claimed_by => 'me', max_messages => 10, lease => '30 seconds',
    horizon => '1 second', lookahead => '0', ended_before => 'infinity', first_after_at => '-infinity',
    first_after_id => 0, retry_after_at => '-infinity', retry_after_id => 0, poll_interval => '2 seconds',
    wants_wakeup => true) where id is null";

async fn execute(session: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(session)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_producers_insert_can_be_prepared_while_a_worker_is_idle() {
    let postgres = Postgres::start_with_settings(&["max_prepared_transactions=5"]).await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    world
        .execute("select signaling.open_lane('default', 100)")
        .await;
    let mut worker = PgConnection::connect(&world.url).await.expect("connected");
    let mut producer = PgConnection::connect(&world.url).await.expect("connected");
    let claim = async |worker: &mut PgConnection| -> Option<String> {
        sqlx::query_scalar(IDLE_CLAIM)
            .fetch_one(worker)
            .await
            .expect("claimed")
    };

    assert_eq!(claim(&mut worker).await, None, "the worker has to poll");
    for statement in ["begin", INSERT, PREPARE, "commit prepared 'of a producer'"] {
        execute(&mut producer, statement).await.expect("done");
    }
    assert_eq!(world.count("true").await, 1);
    world.execute("delete from signaling.outbox").await;

    // An operator who sets signaling.notify gets wakeups, and then Postgres refuses to prepare.
    execute(&mut worker, "set signaling.notify = 'on'")
        .await
        .expect("set");
    assert_eq!(claim(&mut worker).await.as_deref(), Some("new"));
    for statement in ["begin", INSERT] {
        execute(&mut producer, statement).await.expect("done");
    }
    let refused = execute(&mut producer, PREPARE).await.expect_err("refused");
    assert!(refused.to_string().contains("NOTIFY"), "{refused}");
    drop(world);
    postgres.cluster.stop().await.expect("stopped");
}
