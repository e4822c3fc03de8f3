//! `worker migrate` in databases of all kinds.

use sqlx::{Connection, PgConnection};

use testkit::{Postgres, Worker, World, ask, execute};

fn migrate(url: &str) -> Worker {
    Worker::on(url, &["migrate"])
}

async fn connected(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connected")
}

#[tokio::test]
async fn an_applications_own_sqlx_migrations_are_not_disturbed() {
    let url = Postgres::shared().await.empty_database().await;
    let mut connection = connected(&url).await;
    // As sqlx makes it; the version is also one of ours.
    execute(&mut connection, "create table public._sqlx_migrations (
             version bigint primary key, description text not null,
             installed_on timestamptz not null default now(), success boolean not null,
             checksum bytea not null, execution_time bigint not null);
         insert into public._sqlx_migrations (version, description, success, checksum, execution_time)
         values (1, 'the app', true, '\\x01', 1)").await;

    let first = migrate(&url).finish().await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let lines: Vec<&str> = first.stdout.lines().collect();
    assert!(lines[0].starts_with("applied 1 outbox in "), "{lines:?}");
    assert!(lines[0].ends_with(" ms"), "{lines:?}");
    assert!(lines[1].starts_with("applied 2 stats in "), "{lines:?}");
    assert!(lines[2].starts_with("applied 3 workers in "), "{lines:?}");
    assert!(lines[3].starts_with("installed "), "{lines:?}");
    let second = migrate(&url).finish().await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(
        second.stdout.trim(),
        "the schema signaling was up to date already: nothing changed"
    );

    let kept: Vec<(i64, String, Vec<u8>)> =
        sqlx::query_as("select version, description, checksum from public._sqlx_migrations")
            .fetch_all(&mut connection)
            .await
            .expect("still there");
    assert_eq!(kept, [(1, "the app".to_owned(), vec![1])]);
    let outside: i64 = ask(
        &mut connection,
        "select count(*) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
         where nspname = 'public' and relname not like '\\_sqlx\\_migrations%'",
    )
    .await;
    assert_eq!(
        outside, 0,
        "everything of the worker's is in its own schema"
    );
}

#[tokio::test]
async fn eight_processes_that_migrate_at_once_all_succeed() {
    let url = Postgres::shared().await.empty_database().await;
    let mut processes: Vec<_> = (0..8).map(|_| migrate(&url).start()).collect();
    for process in &mut processes {
        let found = process.wait_exit().await;
        assert_eq!(found, Some(0), "{}", process.stderr.text());
    }
    let applied: i64 = sqlx::query_scalar("select count(*) from signaling.schema_migrations")
        .fetch_one(&mut connected(&url).await)
        .await
        .expect("a count");
    assert!(applied >= 1);
}

#[tokio::test]
async fn migrating_again_leaves_the_messages_alone() {
    let url = Postgres::shared().await.migrated_database().await;
    let mut connection = connected(&url).await;
    let statement = "insert into signaling.outbox (sender, destination, payload)
                     values ('alice', 'bob', 'hello')";
    execute(&mut connection, statement).await;
    let again = migrate(&url).finish().await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let rows: i64 = ask(
        &mut connection,
        "select count(*) from signaling.outbox where status = 'pending'",
    )
    .await;
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_worker_in_a_database_that_is_not_migrated_says_what_to_do() {
    let url = Postgres::shared().await.empty_database().await;
    for command in [&["run"][..], &["status"], &["message", "17"]] {
        Worker::on(&url, command)
            .with_app()
            .fails(1, &["run `worker migrate` first"])
            .await;
    }
}

#[tokio::test]
async fn a_database_whose_encoding_is_not_utf8_is_refused_and_left_as_it_was() {
    let shared = Postgres::shared().await;
    let mut admin = connected(&shared.cluster.admin_url()).await;
    for (name, encoding) in [("of_ascii", "SQL_ASCII"), ("of_latin1", "LATIN1")] {
        execute(&mut admin, &format!(
            "create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
        )).await;
        let url = shared.cluster.url(name);
        let refused = migrate(&url).finish().await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let expected = format!(
            "the database's encoding is {encoding}, and a worker can't read all text of such a database: create the database with `encoding 'UTF8'`"
        );
        assert!(refused.stderr.contains(&expected), "{refused:?}");
        let untouched: bool = sqlx::query_scalar("select to_regnamespace('signaling') is null")
            .fetch_one(&mut connected(&url).await)
            .await
            .expect("an answer");
        assert!(untouched, "{encoding}");
    }
}

#[tokio::test]
async fn an_emptied_list_of_migrations_stops_workers_until_migrate_restores_it() {
    const VERSION: &str = "create or replace function signaling.protocol_version() returns integer
                           language sql immutable parallel safe as";
    let world = World::new().await;
    world.execute("truncate signaling.schema_migrations").await;
    let mut worker = world.worker().start();
    assert_eq!(worker.wait_exit().await, Some(1));
    assert!(worker.stderr.text().contains("schema_migrations is empty"));
    let present: i32 = world.ask("select signaling.protocol_version()").await;
    world.execute(&format!("{VERSION} 'select 0'")).await;
    world
        .command(&["migrate"])
        .fails(1, &["schema_migrations is empty"])
        .await;
    world
        .execute(&format!("{VERSION} 'select {present}'"))
        .await;
    world.run(&["migrate"]).await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    worker.stop().await;
}
