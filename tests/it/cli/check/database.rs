//! The findings of `worker check` about databases with unusual settings.

use simulator::SimulatorConfig;
use testkit::{PgBouncer, Postgres, World};

use super::{assert_line, check, said};
use crate::schema::roles::owned_world;

#[tokio::test]
async fn a_pooler_is_named_with_its_effect() {
    let postgres = Postgres::shared().await;
    let mut world = World::on(postgres, SimulatorConfig::default()).await;
    let pooler = PgBouncer::start(postgres, "").await;
    world.url = pooler.url(&world.url);
    let text = said(check(&world), 0).await;
    let phrases = ["through a pooler", "poll every 200 ms"];
    assert_line(&text, "ok", "database", &phrases);
    assert_line(&text, "ok", "wakeups", &["behind a pooler"]);
    assert_line(&text, "ok", "rights", &[]);
}

#[tokio::test]
async fn row_security_that_applies_to_the_functions_owner_fails() {
    let enable = "alter table signaling.outbox enable row level security";
    let force = "alter table signaling.outbox force row level security";
    let of_superuser = World::new().await;
    let owned = owned_world().await;
    for (world, changes, code, level) in [
        (&of_superuser, &[enable, force][..], 0, "ok"),
        (&owned, &[], 0, "ok"),
        (&owned, &[enable], 0, "ok"),
        (&owned, &[force], 1, "FAIL"),
    ] {
        for change in changes {
            world.execute(change).await;
        }
        let text = said(check(world), code).await;
        assert_line(&text, level, "row security", &[]);
    }
    let text = said(check(&owned), 1).await;
    let phrases = ["policies on outbox", "no force row level security"];
    assert_line(&text, "FAIL", "row security", &phrases);
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
    let text = said(check(&world), 1).await;
    assert_line(&text, "FAIL", "schema", &["LATIN1", "encoding 'UTF8'"]);
}

#[tokio::test]
async fn functions_of_an_older_version_fail_and_newer_ones_do_not() {
    let world = World::new().await;
    for (version, level, code, phrases) in [
        (0, "FAIL", 1, &["at version 0", "worker migrate"][..]),
        (1_000, "ok", 0, &["functions of version 1000"]),
    ] {
        world
            .execute(&format!(
                "create or replace function signaling.protocol_version() returns integer
                 language sql immutable parallel safe as 'select {version}'"
            ))
            .await;
        let text = said(check(&world), code).await;
        assert_line(&text, level, "schema", phrases);
    }
}

#[tokio::test]
async fn prepared_transactions_switch_notifications_off_by_default() {
    let postgres = Postgres::start_with_settings(&["max_prepared_transactions=5"]).await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    let text = said(check(&world), 0).await;
    let database: String = world.ask("select current_database()::text").await;
    let advice = format!("alter database {database} set signaling.notify = 'on'");
    let phrases = ["max_prepared_transactions is 5", &advice];
    assert_line(&text, "warn", "wakeups", &phrases);
    // Without a superuser, the workers' URL can set it.
    let url = format!("{}&options[signaling.notify]=on", world.url);
    let text = said(check(&world).env("DATABASE_URL", &url), 0).await;
    assert_line(&text, "ok", "wakeups", &["inserts notify"]);
    world.execute(&advice).await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "wakeups", &["inserts notify"]);
}
