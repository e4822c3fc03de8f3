//! `worker check` reports sessions that keep dead rows, and the connections of a fleet.

use simulator::SimulatorConfig;
use sqlx::{Connection, PgConnection};
use testkit::{PATIENCE, Postgres, World, execute};

use super::{assert_line, check, said};
use crate::schema::roles::Role;

#[tokio::test]
async fn inactive_slots_and_prepared_transactions_warn() {
    let settings = [
        ("wal_level", "logical"),
        ("max_replication_slots", "4"),
        ("max_prepared_transactions", "5"),
    ];
    let postgres = Postgres::start_with_settings(&settings).await;
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
    let statement = "begin; update signaling.retention set deleted = 0; create table held ();
                     prepare transaction 'orphan'";
    execute(&mut session, statement).await;
    let holds = async || {
        said(check(&world), 0)
            .await
            .contains("prepared transaction 'orphan'")
    };
    world.until("the transaction is old", PATIENCE, holds).await;
    let text = said(check(&world), 0).await;
    let phrases = ["'orphan' of postgres", "rollback prepared"];
    assert_line(&text, "warn", "snapshots", &phrases);
    execute(&mut session, "rollback prepared 'orphan'").await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "snapshots", &[]);
}

#[tokio::test]
async fn a_changed_collation_version_warns() {
    let world = World::new().await;
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "collations", &[]);
    let version: i32 = world
        .ask("select current_setting('server_version_num')::int")
        .await;
    if version < 150_000 {
        // Postgres notes versions of collations alone, and the tests' server has none that has a version.
        return;
    }
    world
        .execute("update pg_database set datcollversion = '0' where datname = current_database()")
        .await;
    let text = said(check(&world), 0).await;
    let phrases = ["was 0 and is", "refresh collation version", "reindex"];
    assert_line(&text, "warn", "collations", &phrases);
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
    assert_line(&text, "ok", "connections", &["3 live workers up to 27"]);
    world
        .execute(&format!("alter role {} connection limit 20", role.name))
        .await;
    let text = said(check_role(), 0).await;
    let phrases = ["of 20 are left by the role's connection limit"];
    assert_line(&text, "warn", "connections", &phrases);
    let database: String = world.ask("select current_database()::text").await;
    world
        .execute(&format!(
            "alter role {} connection limit -1; alter database {database} connection limit 19",
            role.name
        ))
        .await;
    let text = said(check_role(), 0).await;
    let phrases = ["of 19 are left by the database's connection limit"];
    assert_line(&text, "warn", "connections", &phrases);
}
