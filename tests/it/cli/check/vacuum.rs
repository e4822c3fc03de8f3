//! `worker check` reports sessions that keep dead rows, and the connections of a fleet.

use harness::{PATIENCE, Postgres, World, execute};
use simulator::SimulatorConfig;
use sqlx::{Connection, PgConnection};

use super::{assert_finding, check, report};
use crate::schema::roles::Role;

#[tokio::test]
async fn inactive_slots_and_prepared_transactions_warn() {
    let settings = [
        "wal_level=logical",
        "max_replication_slots=4",
        "max_prepared_transactions=5",
    ];
    let postgres = Postgres::start_with_settings(&settings).await;
    let world = World::on(&postgres, SimulatorConfig::default()).await;
    let check = || check(&world);
    let phrases = ["no slot and no standby"];
    assert_finding(check(), "ok", "replication", &phrases).await;

    world
        .execute("select pg_create_logical_replication_slot('forgotten', 'pgoutput')")
        .await;
    let phrases = [
        "'forgotten' is inactive",
        "keeps WAL",
        "pg_drop_replication_slot",
    ];
    assert_finding(check(), "warn", "replication", &phrases).await;
    let mut session = PgConnection::connect(&world.url).await.expect("connected");
    let statement = "begin; update signaling.retention set deleted = 0; create table held ();
                     prepare transaction 'orphan'";
    execute(&mut session, statement).await;
    let is_named = async || report(check(), 0).await.contains("transaction 'orphan'");
    world
        .until("the transaction is old", PATIENCE, is_named)
        .await;
    let phrases = ["'orphan' of postgres", "rollback prepared"];
    assert_finding(check(), "warn", "snapshots", &phrases).await;
    execute(&mut session, "rollback prepared 'orphan'").await;
    assert_finding(check(), "ok", "snapshots", &[]).await;
}

#[tokio::test]
async fn a_changed_collation_version_warns() {
    let world = World::new().await;
    assert_finding(check(&world), "ok", "collations", &[]).await;
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
    let phrases = ["was 0 and is", "refresh collation version", "reindex"];
    assert_finding(check(&world), "warn", "collations", &phrases).await;
}

#[tokio::test]
async fn a_connection_limit_below_the_fleets_need_warns() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    for name in ["one", "two", "three"] {
        world.pretend_worker(name, "1", "default").await;
    }
    let check = || check(&world).env("DATABASE_URL", &role.url);
    let phrases = ["3 live workers up to 27"];
    assert_finding(check(), "ok", "connections", &phrases).await;

    let name = &role.name;
    world
        .execute(&format!("alter role {name} connection limit 20"))
        .await;
    let phrases = [
        "of 20 are left by the role's connection limit",
        "WORKER_DATABASE_CONNECTIONS",
    ];
    assert_finding(check(), "warn", "connections", &phrases).await;

    world
        .execute(&format!("alter role {name} connection limit -1"))
        .await;
    world.alter_database("connection limit 19").await;
    let phrases = ["of 19 are left by the database's connection limit"];
    assert_finding(check(), "warn", "connections", &phrases).await;
}

/// The faults that a query finds in a session for which this view replaces the system's view of its name.
async fn faults(query: &'static str, view: &str) -> Vec<String> {
    let world = World::new().await;
    let mut session = PgConnection::connect(&world.url).await.expect("connected");
    let schema = "create schema replaced; set search_path = replaced, pg_catalog;
                  create function ago(transactions bigint) returns xid language sql as
                      'select ((txid_current() - $1 + 4294967296) % 4294967296)::text::xid'";
    for statements in [schema, view] {
        execute(&mut session, statements).await;
    }
    sqlx::query_scalar(query)
        .fetch_all(&mut session)
        .await
        .expect("faults")
}

fn assert_begin(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected:?}: {found}");
    }
}

#[tokio::test]
async fn a_transaction_is_long_by_its_age_or_by_the_transactions_since() {
    let found = faults(
        include_str!("../../../../src/outbox/diagnostics/snapshots.sql"),
        "create view pg_stat_activity as
         select pid, 'report' as usename, '' as application_name, null as state, current_database() as datname,
                'client backend' as backend_type, ago(transactions) as backend_xmin, null::xid as backend_xid,
                clock_timestamp() - open_for as xact_start
         from (values (1, 5000000, interval '290 seconds'), (2, 1, '601 seconds'), (3, 900000, null), (4, 1000100, null))
              as open (pid, transactions, open_for)",
    );
    let expected = [
        "session 2 of report has been open for 00:10:0",
        "session 4 of report has been open for 10001",
    ];
    assert_begin(&found.await, &expected);
}

#[tokio::test]
async fn an_inactive_old_or_endangered_slot_warns() {
    let found = faults(
        include_str!("../../../../src/outbox/diagnostics/replication.sql"),
        "create view pg_replication_slots as
         select slot_name, active, null::name as database, wal_status, ago(transactions) as xmin, ago(20) as catalog_xmin
         from (values ('good', true, 'reserved', 20), ('unread', false, 'reserved', null), ('behind', true, 'reserved', 1000100),
                      ('removed', true, 'unreserved', null)) as slots (slot_name, active, wal_status, transactions)",
    );
    let expected = [
        "replication slot 'unread' is inactive",
        "replication slot 'behind' keeps rows for 10001",
        "replication slot 'removed' has WAL that is unreserved",
    ];
    assert_begin(&found.await, &expected);
}
