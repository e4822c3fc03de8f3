//! `worker migrate` in a database whose application goes on: what it locks, and for how long others wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr};

use testkit::{PATIENCE, Postgres, WholeMachine, Worker, until};

/// The first migration. It makes the tables, so that the rule can't go for it.
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

/// What an application and its workers do all the time.
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

/// The files of a directory with SQL in them, by name.
fn sql_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    files
}

/// A new database with the first migration and all functions; its URL.
async fn database_at_version_1() -> String {
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
    url
}

async fn connected(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connected")
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Messages, most of them final.
async fn fill(connection: &mut PgConnection, messages: i32) {
    execute(
        connection,
        &format!(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('default', 500, 500, 490);
             insert into signaling.outbox (sender, destination, payload)
             select 'alice', 'user-' || n, 'message ' || n from generate_series(1, {messages}) as n;
             update signaling.outbox set status = 'failed', finished_at = now() where id % 10 <> 0"
        ),
    )
    .await;
}

/// Repeats a statement on a connection of its own until `stop`; how often, and the longest time that one took.
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
    Worker::new(&["migrate"]).env("DATABASE_URL", url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_claim_or_record_fails_or_waits_while_a_database_in_use_is_migrated() {
    let _machine = WholeMachine::take().await;
    let url = database_at_version_1().await;
    let mut connection = connected(&url).await;
    fill(&mut connection, 40_000).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = LOAD.map(|sql| tokio::spawn(repeat(url.clone(), sql, Arc::clone(&stop))));
    let migrated = migrate(&url).finish().await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(
        migrated.stdout.contains("applied 2 stats in "),
        "{migrated:?}"
    );
    // And all functions are replaced, again and again.
    for _ in 0..5 {
        execute(
            &mut connection,
            "do $$ declare one regprocedure; begin
                 for one in select oid from pg_proc where pronamespace = 'signaling'::regnamespace loop
                     execute format('alter function %s set jit = on', one);
                 end loop;
             end $$",
        )
        .await;
        let replaced = migrate(&url).finish().await;
        assert_eq!(replaced.code, Some(0), "{replaced:?}");
        assert!(replaced.stdout.contains("installed "), "{replaced:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for (sql, statements) in LOAD.into_iter().zip(load) {
        let (count, longest) = statements.await.expect("none failed");
        assert!(count > 0, "{sql}");
        assert!(longest < Duration::from_secs(1), "{longest:?}: {sql}");
    }
    for condition in ["claimed_by = 'me'", "error = 'why'"] {
        let query = format!("select exists (select from signaling.outbox where {condition})");
        let happened: bool = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .expect("an answer");
        assert!(happened, "{condition}");
    }
}

#[tokio::test]
async fn a_migration_that_gets_no_lock_says_who_holds_it_and_tries_again() {
    let _machine = WholeMachine::take().await;
    let url = database_at_version_1().await;
    let mut client = connected(&url).await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut client)
        .await
        .expect("a process");
    // The second migration makes a table of this name, and so waits for the end of this transaction.
    execute(
        &mut client,
        "set application_name = 'a long report'; begin; create table signaling.queue_counts (hush_hush text)",
    )
    .await;
    let refused = migrate(&url).arg("--lock-wait").arg("2s").finish().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for phrase in [
        "migration 2 (stats) got no lock within 2s",
        &format!("process {pid} ("),
        "\"a long report\"",
        "idle in transaction",
        "pg_terminate_backend",
    ] {
        assert!(refused.stderr.contains(phrase), "{phrase:?}: {refused:?}");
    }
    assert!(!refused.stderr.contains("hush_hush"), "{refused:?}");

    let mut second = migrate(&url).arg("--lock-wait").arg("1m").start();
    second.until_logged("migration_blocked").await;
    execute(&mut client, "rollback").await;
    assert_eq!(
        second.wait_exit().await,
        Some(0),
        "{}",
        second.stderr.text()
    );
    let printed = second.stdout.text();
    assert!(printed.contains("applied 2 stats in "), "{printed}");
}

#[tokio::test]
async fn migrators_take_turns_and_say_who_is_at_work() {
    let _machine = WholeMachine::take().await;
    let url = Postgres::shared().await.empty_database().await;
    let mut other = connected(&url).await;
    execute(&mut other, "select pg_advisory_lock(7310596821344204)").await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut other)
        .await
        .expect("a process");
    let refused = migrate(&url).arg("--lock-wait").arg("300ms").finish().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let expected =
        format!("another `worker migrate` is at work, for longer than 300ms: process {pid}");
    assert!(refused.stderr.contains(&expected), "{refused:?}");

    let mut patient = migrate(&url).arg("--lock-wait").arg("1m").start();
    until("it waits for its turn", PATIENCE, async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database()
             and query like '%pg_try_advisory_lock%' and pid <> pg_backend_pid())",
        )
        .fetch_one(&mut other)
        .await
        .expect("an answer")
    })
    .await;
    assert!(patient.is_running());
    execute(&mut other, "select pg_advisory_unlock_all()").await;
    assert_eq!(
        patient.wait_exit().await,
        Some(0),
        "{}",
        patient.stderr.text()
    );
}

/// What a migration does to the two tables that grow with the messages.
#[derive(Debug)]
struct Footprint {
    /// Locks that an insert, a claim or a record has to wait for.
    locks: Vec<String>,
    /// Whether a whole table is read or written anew, which takes the longer the more there is.
    reads_a_table: bool,
}

/// Runs a migration in a transaction, looks at what it has done, and undoes it.
async fn footprint(connection: &mut PgConnection, sql: &str) -> Footprint {
    const SEEN: &str = "select coalesce(sum(seq_tup_read), 0)::bigint,
                               array_agg(pg_relation_filenode(relid)::bigint order by relid)
                        from pg_stat_xact_user_tables
                        where schemaname = 'signaling' and relname in ('outbox', 'attempt')";
    let mut transaction = connection.begin().await.expect("a transaction");
    let before: (i64, Vec<i64>) = sqlx::query_as(SEEN)
        .fetch_one(&mut *transaction)
        .await
        .expect("statistics");
    execute(&mut transaction, sql).await;
    let after: (i64, Vec<i64>) = sqlx::query_as(SEEN)
        .fetch_one(&mut *transaction)
        .await
        .expect("statistics");
    let locks = sqlx::query_scalar(
        "select distinct relation::regclass || ' ' || mode from pg_locks
         where pid = pg_backend_pid() and relation in ('signaling.outbox'::regclass, 'signaling.attempt'::regclass)
           and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
         order by 1",
    )
    .fetch_all(&mut *transaction)
    .await
    .expect("locks");
    transaction.rollback().await.expect("undone");
    Footprint {
        locks,
        reads_a_table: before != after,
    }
}

#[tokio::test]
async fn no_migration_reads_or_writes_a_whole_table_while_it_locks_it() {
    let _machine = WholeMachine::take().await;
    let url = database_at_version_1().await;
    let mut connection = connected(&url).await;
    fill(&mut connection, 1_000).await;

    // What this test is there to find, and what it lets pass.
    for (sql, lock, reads_a_table) in [
        (
            "create index on signaling.outbox (finished_at)",
            "ShareLock",
            true,
        ),
        (
            "alter table signaling.outbox add check (id > 0)",
            "AccessExclusiveLock",
            true,
        ),
        (
            "alter table signaling.outbox add column x uuid default gen_random_uuid()",
            "AccessExclusiveLock",
            true,
        ),
        (
            "alter table signaling.outbox add check (id > 0) not valid",
            "AccessExclusiveLock",
            false,
        ),
        (
            "alter table signaling.outbox add column x integer not null default 1",
            "AccessExclusiveLock",
            false,
        ),
    ] {
        let found = footprint(&mut connection, sql).await;
        let lock = format!("signaling.outbox {lock}");
        assert!(found.locks.contains(&lock), "{sql}: {found:?}");
        assert_eq!(found.reads_a_table, reads_a_table, "{sql}: {found:?}");
    }

    let files = sql_files(migrations_directory());
    assert!(files.len() > 1, "{files:?}");
    for file in &files[1..] {
        let sql = std::fs::read_to_string(file).expect("its text");
        // Those that run outside of a transaction take no such lock.
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
