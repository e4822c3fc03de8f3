//! `worker migrate` beside a running application: its locks, and the wait of other statements.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, SqlSafeStr};

use harness::{PATIENCE, Postgres, Worker, ask, assert_contains, execute, until, whole_machine};

/// The first migration. It makes the tables, so the rule for locks is not for it.
const FIRST: &str = include_str!("../../migrations/0001_outbox.sql");

/// A claim of the next messages.
const CLAIM: &str = "select from signaling.claim(
    app => 'default', claim_id => gen_random_uuid(), claimed_by => 'me', max_messages => 20, lease => '30 seconds',
    horizon => '1 second', lookahead => '0', ended_before => 'infinity', first_after_at => '-infinity',
    first_after_id => 0, retry_after_at => '-infinity', retry_after_id => 0, poll_interval => '2 seconds',
    wants_wakeup => true)";

/// The record of one claimed message.
const RECORD: &str = "with claimed as materialized (
        select id, claim_id from signaling.outbox
        where app = 'default' and status = 'pending' and claim_id is not null order by due_at limit 1
    )
    select from signaling.record(
        'me', array(select id from claimed), array(select claim_id from claimed), array(select now() from claimed),
        array(select null::interval from claimed), array(select 'failed' from claimed), array(select true from claimed), array(select now() from claimed),
        array(select 500 from claimed), array(select 'id' from claimed), array(select 'why' from claimed),
        array(select 'transient' from claimed), array(select interval '1 second' from claimed))";

/// The statements of an application and its workers.
const LOAD: [&str; 5] = [
    "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')",
    CLAIM,
    RECORD,
    "select signaling.cancel(10)",
    "select from signaling.next_due(array['default'], '{-infinity}', '{0}', '{-infinity}', '{0}', '1 second', '2 seconds', true)",
];

fn migrations_directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
}

/// The SQL files of a directory, sorted by name.
fn sql_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    files
}

/// Creates a database with the first migration and all functions. Returns the URL and a connection.
async fn database_at_version_1() -> (String, PgConnection) {
    let url = Postgres::shared().await.empty_database().await;
    let mut connection = connected(&url).await;
    let first = Migration::new(
        1,
        "outbox".into(),
        MigrationType::Simple,
        FIRST.into_sql_str(),
        false,
    );
    let mut migrator = Migrator::with_migrations(vec![first]);
    migrator.dangerous_set_table_name("signaling.schema_migrations");
    migrator.create_schema("signaling");
    migrator.run(&mut connection).await.expect("migrated");
    // Some functions name tables of the second migration.
    execute(&mut connection, "set check_function_bodies = off").await;
    for file in sql_files(&migrations_directory().join("functions")) {
        let text = std::fs::read_to_string(&file).expect("its text");
        execute(&mut connection, &text).await;
    }
    (url, connection)
}

async fn connected(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connected")
}

/// Inserts messages. Nine of ten are final.
async fn fill(connection: &mut PgConnection, messages: i32) {
    let statement = format!(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('default', 500, 500, 490);
             insert into signaling.outbox (sender, destination, payload)
             select 'alice', 'user-' || n, 'message ' || n from generate_series(1, {messages}) as n;
             update signaling.outbox set status = 'failed', finished_at = now() where id % 10 <> 0"
        );
    execute(connection, &statement).await;
}

/// Repeats a statement on its own connection until `stop`. Returns the number of repeats and the longest duration.
async fn repeat(url: String, sql: &'static str, stop: Arc<AtomicBool>) -> (u32, Duration) {
    let mut connection = connected(&url).await;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        execute(&mut connection, sql).await;
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

fn migrate(url: &str) -> Worker {
    Worker::on(url, &["migrate"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_claim_or_record_fails_or_waits_during_a_migration() {
    let _machine = whole_machine().await;
    let (url, mut connection) = database_at_version_1().await;
    fill(&mut connection, 40_000).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = LOAD.map(|sql| tokio::spawn(repeat(url.clone(), sql, Arc::clone(&stop))));
    let migrated = migrate(&url).succeeds().await;
    assert_contains(&migrated, &["applied 2 stats in "]);
    for _ in 0..5 {
        execute(&mut connection, harness::ALTER_EVERY_FUNCTION).await;
        let replaced = migrate(&url).succeeds().await;
        assert!(replaced.contains("installed "), "{replaced}");
    }
    stop.store(true, Ordering::Relaxed);
    for (sql, statements) in LOAD.into_iter().zip(load) {
        let (count, longest) = statements.await.expect("none failed");
        assert!(count > 0, "{sql}");
        assert!(longest < Duration::from_secs(1), "{longest:?}: {sql}");
    }
    for condition in ["claimed_by = 'me'", "error = 'why'"] {
        let query = format!("select exists (select from signaling.outbox where {condition})");
        assert!(ask::<bool>(&mut connection, &query).await, "{condition}");
    }
}

#[tokio::test]
async fn a_migration_that_gets_no_lock_names_the_holder_and_tries_again() {
    let _machine = whole_machine().await;
    let (url, mut client) = database_at_version_1().await;
    let pid: i32 = ask(&mut client, "select pg_backend_pid()").await;
    // Each migration is written into this table.
    let statement = "set application_name = 'a long report'; begin;
                     lock table signaling.schema_migrations in share mode /* hush_hush */";
    execute(&mut client, statement).await;
    let refused = migrate(&url)
        .arg("--lock-wait")
        .arg("2s")
        .fails(
            1,
            &[
                "migration 2 (stats) got no lock within 2s",
                &format!("process {pid} ("),
                "\"a long report\"",
                "idle in transaction",
                "pg_terminate_backend",
            ],
        )
        .await;
    assert!(!refused.stderr.contains("hush_hush"), "{refused:?}");

    let mut second = migrate(&url).arg("--lock-wait").arg("1m").start();
    second.until_logged("migration_blocked").await;
    execute(&mut client, "rollback").await;
    assert_eq!(second.wait_exit().await, Some(0));
    assert_contains(&second.stdout.text(), &["applied 2 stats in "]);
}

#[tokio::test]
async fn migrators_take_turns_and_name_the_running_one() {
    let _machine = whole_machine().await;
    let url = Postgres::shared().await.empty_database().await;
    let mut other = connected(&url).await;
    execute(&mut other, "select pg_advisory_lock(7310596821344204)").await;
    let pid: i32 = ask(&mut other, "select pg_backend_pid()").await;
    let refused = migrate(&url).arg("--lock-wait").arg("300ms");
    let expected = format!("another `worker migrate`, process {pid}");
    let refused = refused.fails(1, &[&expected]).await;
    let advises_to_end = refused.stderr.contains("pg_terminate_backend");
    assert!(!advises_to_end, "{refused:?}");

    let mut patient = migrate(&url).arg("--lock-wait").arg("1m").start();
    let is_waiting = "select exists (
        select from pg_stat_activity where datname = current_database()
        and query like '%pg_try_advisory_lock%' and pid <> pg_backend_pid())";
    let waits = async || ask(&mut other, is_waiting).await;
    until("it waits for its turn", PATIENCE, waits).await;
    assert!(patient.is_running());
    execute(&mut other, "select pg_advisory_unlock_all()").await;
    assert_eq!(patient.wait_exit().await, Some(0));
}

/// The effects of a migration on the two tables that grow with the messages.
#[derive(Debug)]
struct Footprint {
    /// Locks that block an insert, a claim or a record.
    locks: Vec<String>,
    /// The migration reads or rewrites a whole table, so its duration grows with the table.
    reads_a_table: bool,
}

/// Runs a migration in a transaction, returns its effects, and rolls it back.
async fn footprint(connection: &mut PgConnection, sql: &str) -> Footprint {
    const SEEN: &str = "select concat(sum(seq_tup_read), ' ', array_agg(pg_relation_filenode(relid) order by relid))
                        from pg_stat_xact_user_tables
                        where schemaname = 'signaling' and relname in ('outbox', 'attempt')";
    let mut transaction = connection.begin().await.expect("a transaction");
    let before: String = ask(&mut transaction, SEEN).await;
    execute(&mut transaction, sql).await;
    let after: String = ask(&mut transaction, SEEN).await;
    let locks = ask(
        &mut transaction,
        "select array(select distinct relation::regclass || ' ' || mode from pg_locks
         where pid = pg_backend_pid() and relation in ('signaling.outbox'::regclass, 'signaling.attempt'::regclass)
           and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
         order by 1)",
    )
    .await;
    transaction.rollback().await.expect("undone");
    Footprint {
        locks,
        reads_a_table: before != after,
    }
}

#[tokio::test]
async fn no_migration_reads_or_writes_a_whole_table_while_it_locks_it() {
    let _machine = whole_machine().await;
    let (_, mut connection) = database_at_version_1().await;
    fill(&mut connection, 1_000).await;

    // Changes that the test must find, and changes that it must allow.
    for (sql, reads_a_table) in [
        ("create index on signaling.outbox (finished_at)", true),
        ("alter table signaling.outbox add check (id > 0)", true),
        (
            "alter table signaling.outbox add column x uuid default gen_random_uuid()",
            true,
        ),
        (
            "alter table signaling.outbox add check (id > 0) not valid",
            false,
        ),
        (
            "alter table signaling.outbox add column x integer not null default 1",
            false,
        ),
    ] {
        let found = footprint(&mut connection, sql).await;
        let is_alter = sql.starts_with("alter");
        let lock = if is_alter {
            "AccessExclusiveLock"
        } else {
            "ShareLock"
        };
        let lock = format!("signaling.outbox {lock}");
        assert!(found.locks.contains(&lock), "{sql}: {found:?}");
        assert_eq!(found.reads_a_table, reads_a_table, "{sql}: {found:?}");
    }

    let files = sql_files(migrations_directory());
    assert!(files.len() > 1, "{files:?}");
    for file in &files[1..] {
        let sql = std::fs::read_to_string(file).expect("its text");
        // A migration outside of a transaction takes no such lock.
        if !sql.starts_with("-- no-transaction\n") {
            let footprint = footprint(&mut connection, &sql).await;
            assert!(
                footprint.locks.is_empty() || !footprint.reads_a_table,
                "{}: {footprint:?}",
                file.display()
            );
        }
        execute(&mut connection, &sql).await;
    }
}
