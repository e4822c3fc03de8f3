//! Migrations in a database whose application goes on: what they lock, and for how long others wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr};

use testkit::{PATIENCE, Postgres, WholeMachine, Worker, until};

const CLAIM: &str = include_str!("../../src/outbox/queue/claim.sql");

/// The migrations that were released before the rule was, and which it does not go for.
const BEFORE_THE_RULE: [(i64, &str); 2] = [
    (1, include_str!("../../migrations/0001_outbox.sql")),
    (2, include_str!("../../migrations/0002_lane_control.sql")),
];

/// A new database with the first migrations; its URL.
async fn database_at_version(version: i64) -> String {
    let url = Postgres::shared().await.empty_database().await;
    let migrations = BEFORE_THE_RULE
        .into_iter()
        .filter(|(number, _)| *number <= version)
        .map(|(number, sql)| {
            Migration::new(
                number,
                "released".into(),
                MigrationType::Simple,
                sql.into_sql_str(),
                false,
            )
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name("signaling.schema_migrations");
    migrator.create_schema("signaling");
    migrator
        .run(&mut connected(&url).await)
        .await
        .expect("migrated");
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

/// The claim as it was while the lanes had no generation.
fn as_an_older_worker(claim: &str) -> String {
    let added = [
        (
            "app collate \"C\" = $1 order by generation desc limit 1 for update",
            "app = $1 for update",
        ),
        (
            ",\n        generation = lane.generation + (random() < 0.02)::int",
            "",
        ),
        (
            "and lane.generation >= (select generation from signaling.lane where app collate \"C\" = $1 order by generation desc limit 1)",
            "",
        ),
    ];
    let mut claim = claim.to_owned();
    for (new, old) in added {
        assert!(claim.contains(new), "the claim has no {new:?}");
        claim = claim.replace(new, old);
    }
    claim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_and_claims_go_on_while_a_table_in_use_is_migrated() {
    let _machine = WholeMachine::take().await;
    let url = database_at_version(2).await;
    fill(&mut connected(&url).await, 40_000).await;

    let stop = Arc::new(AtomicBool::new(false));
    let claim: &'static str = as_an_older_worker(CLAIM)
        // The longer names first.
        .replace("$13::bigint", "2000000")
        .replace("$12::bigint", "0")
        .replace("$11", "null")
        .replace("$10", "0")
        .replace("$1", "'default'")
        .replace("$2::bigint", "20")
        .replace("$3::bigint", "150000")
        .replace("$4::bigint", "30000000")
        .replace("$5", "gen_random_uuid()")
        .replace("$6", "'me'")
        .replace("$7::boolean", "true")
        .replace("$8", "'infinity'::timestamptz")
        .replace("$9", "null")
        .leak();
    let statements = [
        "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')",
        claim,
        "select signaling.cancel(10)",
    ];
    let others = statements.map(|sql| tokio::spawn(repeat(url.clone(), sql, Arc::clone(&stop))));
    let migrated = Worker::new(&["migrate"])
        .env("DATABASE_URL", &url)
        .finish()
        .await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(
        migrated.stdout.contains("applied 4 retention in "),
        "{migrated:?}"
    );
    for (sql, other) in statements.into_iter().zip(others) {
        let (count, longest) = other.await.expect("it goes on");
        assert!(count > 0, "{sql}");
        assert!(longest < Duration::from_secs(1), "{longest:?}: {sql}");
    }
    let claimed: bool =
        sqlx::query_scalar("select exists (select from signaling.outbox where claimed_by = 'me')")
            .fetch_one(&mut connected(&url).await)
            .await
            .expect("an answer");
    assert!(claimed, "the claims took nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_gets_no_lock_lets_others_go_on_and_says_who_holds_it() {
    let _machine = WholeMachine::take().await;
    // The second migration alters the table of the lanes.
    let url = database_at_version(1).await;
    let mut client = connected(&url).await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut client)
        .await
        .expect("a process");
    execute(
        &mut client,
        "set application_name = 'a long report'; begin; select 'hush-hush' from signaling.lane",
    )
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let reading = repeat(url.clone(), "select from signaling.lane", Arc::clone(&stop));
    let reader = tokio::spawn(reading);
    let migrate = |lock_wait: &str| {
        Worker::new(&["migrate", "--lock-wait", lock_wait]).env("DATABASE_URL", &url)
    };
    let refused = migrate("2s").finish().await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for phrase in [
        "migration 2 (lane control) got no lock within 2s",
        &format!("process {pid} ("),
        "\"a long report\"",
        "idle in transaction",
        "pg_terminate_backend",
    ] {
        assert!(refused.stderr.contains(phrase), "{phrase:?}: {refused:?}");
    }
    assert!(!refused.stderr.contains("hush-hush"), "{refused:?}");
    let (reads, longest) = reader.await.expect("it goes on");
    assert!(reads > 0);
    assert!(
        longest < Duration::from_secs(1),
        "a reader waited {longest:?}"
    );
    assert!(
        longest > Duration::from_millis(300),
        "nobody was in the queue behind the migration: {longest:?}"
    );

    let mut second = migrate("1m").start();
    second.until_logged("migration_blocked").await;
    execute(&mut client, "commit").await;
    assert_eq!(
        second.wait_exit().await,
        Some(0),
        "{}",
        second.stderr.text()
    );
    let printed = second.stdout.text();
    assert!(printed.contains("applied 2 lane control in "), "{printed}");
}

/// Older versions take their turn by the lock that sqlx takes.
#[tokio::test]
async fn migrators_take_turns_with_those_of_older_versions_and_say_who_is_at_work() {
    use sqlx::migrate::Migrate;
    let _machine = WholeMachine::take().await;
    let url = Postgres::shared().await.empty_database().await;
    let mut older = connected(&url).await;
    older.lock().await.expect("its turn");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut older)
        .await
        .expect("a process");
    let migrate = |lock_wait: &str| {
        Worker::new(&["migrate", "--lock-wait", lock_wait]).env("DATABASE_URL", &url)
    };
    let refused = migrate("300ms").finish().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let expected =
        format!("another `worker migrate` is at work, for longer than 300ms: process {pid}");
    assert!(refused.stderr.contains(&expected), "{refused:?}");

    let mut patient = migrate("1m").start();
    until("it waits for its turn", PATIENCE, async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database()
             and query like '%pg_try_advisory_lock%' and pid <> pg_backend_pid())",
        )
        .fetch_one(&mut older)
        .await
        .expect("an answer")
    })
    .await;
    assert!(patient.is_running());
    older.unlock().await.expect("unlocked");
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
    let url = database_at_version(2).await;
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

    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("migrations")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() > BEFORE_THE_RULE.len(), "{files:?}");
    for file in &files[BEFORE_THE_RULE.len()..] {
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
