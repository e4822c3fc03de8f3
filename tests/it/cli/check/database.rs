//! The findings of `worker check` about settings of the database, refused messages and sequences.

use harness::{PgBouncer, Postgres, World};
use simulator::SimulatorConfig;

use super::{assert_finding, assert_line, check};
use crate::database_proxy::{DatabaseProxy, Network};

#[tokio::test]
async fn a_pooler_is_named_with_its_effect() {
    let postgres = Postgres::shared().await;
    let mut world = World::on(postgres, SimulatorConfig::default()).await;
    let pooler = PgBouncer::start(postgres, "").await;
    world.url = pooler.url(&world.url);
    let phrases = ["through a pooler", "poll every 200 ms"];
    let text = assert_finding(check(&world), "ok", "database", &phrases).await;
    assert_line(&text, "ok", "wakeups", &["behind a pooler"]);
    assert_line(&text, "ok", "privileges", &[]);
}

#[tokio::test]
async fn one_slow_round_trip_does_not_warn_of_a_distant_database() {
    let mut world = World::new().await;
    let proxy = DatabaseProxy::open(&world);
    proxy.set(Network::StallingOnce("select clock_timestamp()"));
    world.url.clone_from(&proxy.url);
    assert_finding(check(&world), "ok", "database", &[" ms away"]).await;
}

#[tokio::test]
async fn another_encoding_fails_before_the_schema_is_created() {
    let mut world = World::new().await;
    let database: String = world.ask("select current_database()::text").await;
    let name = format!("latin1_{database}");
    world
        .execute(&format!(
            "create database {name} encoding 'LATIN1' locale 'C' template template0"
        ))
        .await;
    world.url = world.url.replace(&database, &name);
    let phrases = ["LATIN1", "encoding 'UTF8'"];
    assert_finding(check(&world), "FAIL", "schema", &phrases).await;
}

#[tokio::test]
async fn prepared_transactions_switch_notifications_off_by_default() {
    let postgres = Postgres::start_with_settings(&["max_prepared_transactions=5"]).await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    let database: String = world.ask("select current_database()::text").await;
    let advice = format!("alter database {database} set signaling.notify = 'on'");
    let phrases = ["max_prepared_transactions is 5", &advice];
    assert_finding(check(&world), "warn", "wakeups", &phrases).await;
    // Without a superuser, the workers' URL can set it.
    let url = format!("{}&options[signaling.notify]=on", world.url);
    let by_url = check(&world).env("DATABASE_URL", &url);
    assert_finding(by_url, "ok", "wakeups", &["inserts notify"]).await;
    world.execute(&advice).await;
    assert_finding(check(&world), "ok", "wakeups", &["inserts notify"]).await;
}

#[tokio::test]
async fn a_read_only_database_fails() {
    let world = World::new().await;
    world
        .alter_database("set default_transaction_read_only = on")
        .await;
    assert_finding(check(&world), "FAIL", "database", &["read-only"]).await;
}

#[tokio::test]
async fn check_finds_autovacuum_off_refused_messages_and_late_sequences() {
    let insert = "insert into signaling.outbox (id, sender, destination, payload) overriding system value values";
    let next_is_7 = "select setval('signaling.outbox_id_seq', 7, false)";
    let advice = "as the schema's owner, run select setval(";
    for (damage, level, subject, phrases) in [
        (
            "alter table signaling.outbox set (autovacuum_enabled = off)".to_owned(),
            "warn",
            "autovacuum",
            &["outbox"][..],
        ),
        (
            format!(
                "{insert} (7, 'a', 'b', 'c');
                 insert into signaling.refused
                 values ('default', 7, now(), 1, now() + interval '1 minute', '23514', 'short_ids');
                 select setval('signaling.outbox_id_seq', 8)"
            ),
            "warn",
            "refused",
            &["1 messages", "23514 short_ids", "worker resume"],
        ),
        (
            format!("{insert} (7, 'a', 'b', 'c'); {next_is_7}"),
            "FAIL",
            "sequences",
            &["after 0 inserts, the insert with id 7 fails", advice],
        ),
        (
            format!("{insert} (10, 'a', 'b', 'c'); {next_is_7}"),
            "warn",
            "sequences",
            &["after 3 inserts, the insert with id 10 fails", advice],
        ),
        (
            format!(
                "{insert} (7, 'a', 'b', 'c'); select setval('signaling.outbox_id_seq', 8);
                 insert into signaling.attempt (message_id, attempt, outcome) values (7, 1, 'lost');
                 select setval('signaling.attempt_id_seq', 1, false)"
            ),
            "warn",
            "sequences",
            &["its rows get free ids"],
        ),
    ] {
        let world = World::new().await;
        world.execute(&damage).await;
        assert_finding(check(&world), level, subject, phrases).await;
    }
}
