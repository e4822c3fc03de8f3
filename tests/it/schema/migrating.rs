//! `worker migrate` in databases of all kinds.

use sqlx::{Connection, PgConnection};

use super::functions::set_version;
use harness::{Postgres, Worker, World, ask, execute};

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

    let output = migrate(&url).succeeds().await;
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("applied 1 outbox in "), "{output}");
    assert!(lines[0].ends_with(" ms"), "{output}");
    assert!(lines[1].starts_with("applied 2 stats in "), "{output}");
    assert!(lines[2].starts_with("applied 3 workers in "), "{output}");
    assert!(lines[3].starts_with("installed "), "{output}");

    let kept: Vec<(i64, String, Vec<u8>)> =
        sqlx::query_as("select version, description, checksum from public._sqlx_migrations")
            .fetch_all(&mut connection)
            .await
            .expect("still there");
    assert_eq!(kept, [(1, "the app".to_owned(), vec![1])]);
    let outside = "select count(*) from pg_class
                   where relnamespace = 'public'::regnamespace and relname not like '\\_sqlx\\_migrations%'";
    let outside: i64 = ask(&mut connection, outside).await;
    assert_eq!(outside, 0, "all of the worker's is in its own schema");
}

#[tokio::test]
async fn eight_processes_that_migrate_at_once_all_succeed() {
    let url = Postgres::shared().await.empty_database().await;
    let mut processes: Vec<_> = (0..8).map(|_| migrate(&url).start()).collect();
    for process in &mut processes {
        let found = process.wait_exit().await;
        assert_eq!(found, Some(0), "{}", process.stderr.text());
    }
    Worker::on(&url, &["status"]).succeeds().await;
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
        let create = format!(
            "create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
        );
        execute(&mut admin, &create).await;
        let url = shared.cluster.url(name);
        let expected = format!(
            "the database's encoding is {encoding}, and a worker can't read all its text: create the database with `encoding 'UTF8'`"
        );
        migrate(&url).fails(1, &[&expected]).await;
        let is_untouched = "select to_regnamespace('signaling') is null";
        assert!(ask::<bool>(&mut connected(&url).await, is_untouched).await);
    }
}

#[tokio::test]
async fn an_emptied_list_of_migrations_stops_workers_until_migrate_restores_it() {
    let world = World::new().await;
    world.execute("truncate signaling.schema_migrations").await;
    let is_empty = ["schema_migrations is empty"];
    world.worker().fails(1, &is_empty).await;
    let present: i32 = world.ask("select signaling.protocol_version()").await;
    set_version(&world, 0).await;
    world.command(&["migrate"]).fails(1, &is_empty).await;
    set_version(&world, present).await;
    let restored =
        "restored the rows of signaling.schema_migrations\nthe schema signaling is up to date\n";
    assert_eq!(world.run(&["migrate"]).await, restored);
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    worker.stop().await;
}
