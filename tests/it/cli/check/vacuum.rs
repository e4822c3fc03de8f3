//! `worker check` reports sessions that keep dead rows, and the connections of a fleet.

use std::collections::BTreeMap;

use simulator::SimulatorConfig;
use sqlx::{Connection, PgConnection};
use testkit::postgres::Settings;
use testkit::{PATIENCE, Postgres, World};

use super::{assert_line, check, said};
use crate::schema::roles::Role;

#[tokio::test]
async fn inactive_slots_and_prepared_transactions_warn() {
    let settings = [
        ("wal_level", "logical"),
        ("max_replication_slots", "4"),
        ("max_prepared_transactions", "5"),
    ];
    let postgres = Postgres::start_with(Settings {
        server_settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        ..Settings::default()
    })
    .await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "replication", &["no slot and no standby"]);

    world
        .execute("select pg_create_logical_replication_slot('forgotten', 'pgoutput')")
        .await;
    let text = said(check(&world), 0).await;
    let phrases = [
        "'forgotten' is inactive",
        "keeps WAL",
        "pg_drop_replication_slot",
    ];
    assert_line(&text, "warn", "replication", &phrases);
    world
        .execute("select pg_drop_replication_slot('forgotten')")
        .await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "replication", &[]);

    // A physical slot that has reserved the log, as a standby's has.
    world
        .execute("select pg_create_physical_replication_slot('standby', true)")
        .await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "warn", "replication", &["'standby' is inactive"]);

    let mut session = PgConnection::connect(&world.url).await.expect("connected");
    sqlx::raw_sql("begin; update signaling.retention set deleted = 0; create table held (); prepare transaction 'orphan'")
        .execute(&mut session)
        .await
        .expect("prepared");
    world
        .until("the transaction is old", PATIENCE, async || {
            said(check(&world), 0)
                .await
                .contains("prepared transaction 'orphan'")
        })
        .await;
    let text = said(check(&world), 0).await;
    assert_line(
        &text,
        "warn",
        "snapshots",
        &["'orphan' of postgres", "rollback prepared"],
    );
    sqlx::raw_sql("rollback prepared 'orphan'")
        .execute(&mut session)
        .await
        .expect("rolled back");
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "snapshots", &[]);
}

#[tokio::test]
async fn a_role_that_can_not_see_sessions_gets_a_warning() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let mut session = PgConnection::connect(&world.url).await.expect("connected");
    sqlx::raw_sql("begin isolation level repeatable read; select from signaling.outbox")
        .execute(&mut session)
        .await
        .expect("open");
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    let grant = format!("grant pg_monitor to {}", role.name);
    assert_line(&text, "warn", "snapshots", &["may not see", &grant]);
    world
        .execute(&format!("grant pg_monitor to {}", role.name))
        .await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    assert!(!text.contains("may not see"), "{text}");
}

#[tokio::test]
async fn a_connection_limit_below_the_fleets_need_warns() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    for name in ["one", "two", "three"] {
        world.pretend_worker(name, "1", "default").await;
    }
    let check_role = || check(&world).env("DATABASE_URL", &role.url);
    let text = said(check_role(), 0).await;
    assert_line(&text, "ok", "fleet", &["3 workers alive"]);
    world
        .execute(&format!("alter role {} connection limit 20", role.name))
        .await;
    let text = said(check_role(), 0).await;
    assert_line(&text, "warn", "fleet", &["role's connection limit is 20"]);
    let database: String = world.ask("select current_database()::text").await;
    world
        .execute(&format!(
            "alter role {} connection limit -1; alter database {database} connection limit 19",
            role.name
        ))
        .await;
    let text = said(check_role(), 0).await;
    assert_line(
        &text,
        "warn",
        "fleet",
        &["database's connection limit is 19"],
    );
}
