use super::super::version::migration;
use super::*;
use crate::outbox::DEFAULT_MAX_AGE;
use crate::secret::SecretSource;
use testkit::postgres::ThrowawayPostgres;

fn table_and_index() -> [Migration; 2] {
    [
        migration(
            1,
            "table",
            "create table signaling.numbers as select generate_series(1, 1000) as n",
        ),
        migration(
            2,
            "index",
            "-- no-transaction\ncreate index concurrently numbers_n on signaling.numbers (n)",
        ),
    ]
}

fn column(text: &'static str) -> [Migration; 1] {
    [migration(3, "column", text)]
}

const ADD_COLUMN: &str = "alter table signaling.numbers add column m integer";

/// Runs migrations, and returns how many it has run.
async fn run(
    url: &str,
    migrations: &[Migration],
    lock_wait: Duration,
) -> Result<usize, SchemaError> {
    let outbox = Outbox::connect(Some(SecretSource::value(url)), 1, DEFAULT_MAX_AGE)
        .await
        .unwrap();
    let connection = outbox.migrating_connection().await.unwrap();
    run_by(connection, migrations, lock_wait).await
}

async fn run_by(
    mut connection: PgConnection,
    migrations: &[Migration],
    lock_wait: Duration,
) -> Result<usize, SchemaError> {
    let mut applied = 0;
    let ran = super::run(&mut connection, migrations, lock_wait, |_| applied += 1).await;
    connection.close().await.unwrap();
    ran.map(|()| applied)
}

/// With a blocking wait, the index build and the statement that waits for its turn would wait for each other.
#[tokio::test]
async fn an_index_is_built_concurrently_while_other_processes_wait_for_their_turn() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("in_turn").await.unwrap();
    let migrations = table_and_index();
    let migrate = || run(&url, &migrations, Duration::from_secs(30));
    let (a, b, c, d) = tokio::join!(migrate(), migrate(), migrate(), migrate());
    let applied = [a, b, c, d].map(Result::unwrap);
    assert_eq!(
        applied.iter().sum::<usize>(),
        2,
        "each by one of them: {applied:?}"
    );

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let is_valid =
        "select indisvalid from pg_index where indexrelid = 'signaling.numbers_n'::regclass";
    assert!(
        value::<bool>(&mut connection, query(is_valid))
            .await
            .unwrap()
    );
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

/// Every later statement on a table waits behind a migration that waits for a lock on the table.
#[tokio::test]
async fn readers_go_on_while_a_migration_waits_for_a_lock_on_their_table() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("blocked").await.unwrap();
    run(&url, &table_and_index(), Duration::ZERO).await.unwrap();
    let mut holder = PgConnection::connect(&url).await.unwrap();
    let pid: i32 = value(&mut holder, query("select pg_backend_pid()"))
        .await
        .unwrap();
    holder
        .execute("set application_name = 'a report'; begin; select from signaling.numbers")
        .await
        .unwrap();

    let mut reader = PgConnection::connect(&url).await.unwrap();
    let mut longest = Duration::ZERO;
    // Connected first: the reader keeps a busy machine so busy that connecting may miss its deadline.
    let outbox = Outbox::connect(Some(SecretSource::value(&*url)), 1, DEFAULT_MAX_AGE)
        .await
        .unwrap();
    let connection = outbox.migrating_connection().await.unwrap();
    let migrations = column(ADD_COLUMN);
    let migrated = run_by(connection, &migrations, Duration::from_secs(3));
    tokio::pin!(migrated);
    let error = loop {
        let begun = Instant::now();
        tokio::select! {
            migrated = &mut migrated => break migrated.unwrap_err(),
            read = reader.execute("select from signaling.numbers") => drop(read.unwrap()),
        }
        longest = longest.max(begun.elapsed());
    };
    let error = error.to_string();
    let (_, holders) = error.split_once(": held by ").expect("holders of a lock");
    let pid = format!("process {pid} (user \"");
    assert!(holders.starts_with(&pid), "{holders}");
    let about = "\", application \"a report\", idle in transaction, its transaction began at 2";
    assert!(holders.contains(about), "{holders}");
    let waits = Duration::from_millis(300)..Duration::from_secs(2);
    assert!(waits.contains(&longest), "a reader waited {longest:?}");
    holder.close().await.unwrap();
    cluster.stop().await.unwrap();
}

/// Postgres cancels an autovacuum only for a session that has waited as long as `deadlock_timeout`.
#[tokio::test]
async fn a_migrator_lowers_deadlock_timeout_if_its_role_may() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("vacuumed").await.unwrap();
    let mut admin = PgConnection::connect(&url).await.unwrap();
    let role = "create role plain login password 'plain'";
    admin.execute(role).await.unwrap();
    admin.close().await.unwrap();
    let (_, host) = url.split_once('@').unwrap();
    // A role without the privilege to change the setting can migrate.
    for (url, timeout) in [
        (url.clone(), "200ms"),
        (format!("postgres://plain:plain@{host}"), "1s"),
    ] {
        let outbox = Outbox::connect(Some(SecretSource::value(url)), 1, DEFAULT_MAX_AGE)
            .await
            .unwrap();
        let mut connection = outbox.migrating_connection().await.unwrap();
        let setting = query("select current_setting('deadlock_timeout')");
        let setting: String = value(&mut connection, setting).await.unwrap();
        assert_eq!(setting, timeout);
        connection.close().await.unwrap();
    }
    cluster.stop().await.unwrap();
}

/// A long index build would otherwise show no progress, and an error would hide the finished migrations.
#[tokio::test]
async fn a_finished_migration_is_reported_although_the_next_one_fails() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("reported").await.unwrap();
    let mut lines = Vec::new();
    let outbox = Outbox::connect(Some(SecretSource::value(url)), 1, DEFAULT_MAX_AGE)
        .await
        .unwrap();
    let mut connection = outbox.migrating_connection().await.unwrap();
    let [table, _] = table_and_index();
    let migrations = [table, migration(2, "wrong", "select 1 / 0")];
    let report = |line| lines.push(line);
    let failed = super::run(&mut connection, &migrations, Duration::ZERO, report).await;
    let error = failed.unwrap_err().to_string();
    assert!(
        error.contains("migration 2 (wrong) failed: division by zero"),
        "{error}"
    );
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("applied 1 table in "), "{lines:?}");
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_migration_that_was_run_with_another_text_is_refused() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("changed").await.unwrap();
    run(&url, &table_and_index(), Duration::ZERO).await.unwrap();
    run(&url, &column(ADD_COLUMN), Duration::ZERO)
        .await
        .unwrap();
    let changed = column("select 1");
    let refused = run(&url, &changed, Duration::ZERO).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("migration 3 (column) was run with another text"),
        "{refused}"
    );
    cluster.stop().await.unwrap();
}
