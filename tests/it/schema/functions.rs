//! The functions in the database are those of `migrations/functions/`, and `worker migrate` keeps them so.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::roles::Role;
use testkit::{World, assert_contains, execute};

/// The text of each file in `migrations/functions/`, by the function's name.
fn files() -> BTreeMap<String, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/functions");
    std::fs::read_dir(folder)
        .expect("functions")
        .map(|entry| {
            let path = entry.expect("a file").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("its text");
            (name.into_owned(), text)
        })
        .collect()
}

/// The text between the quotes of a function's definition.
fn body(text: &str) -> &str {
    let (open, close) = if text.contains("as $$") {
        ("as $$", "$$;")
    } else {
        ("as '", "';")
    };
    let (_, rest) = text.split_once(open).expect("a body");
    rest.split_once(close).expect("its end").0
}

/// The query of each function's name and whole definition.
const DEFINITIONS: &str = "select proname::text, pg_get_functiondef(oid) from pg_proc
                           where pronamespace = 'signaling'::regnamespace order by proname";

async fn definitions(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as(DEFINITIONS)
        .fetch_all(connection)
        .await
        .expect("functions")
}

async fn migrate(world: &World) -> String {
    world.run(&["migrate"]).await
}

async fn body_of(world: &World, name: &str) -> String {
    world
        .ask(&format!(
            "select prosrc from pg_proc where oid = to_regproc('signaling.{name}')"
        ))
        .await
}

#[tokio::test]
async fn the_database_has_the_function_of_each_file_and_no_other() {
    let world = World::new().await;
    let found: Vec<(String, String)> = sqlx::query_as(
        "select proname::text, prosrc from pg_proc where pronamespace = 'signaling'::regnamespace order by proname",
    )
    .fetch_all(&world.pool)
    .await
    .expect("functions");
    let files = files();
    let expected = files
        .iter()
        .map(|(name, text)| (name.clone(), body(text).to_owned()));
    assert!(expected.clone().eq(found.clone()), "{found:#?}");
}

#[tokio::test]
async fn running_a_file_again_changes_nothing_of_its_function() {
    let world = World::new().await;
    let mut connection = world.pool.acquire().await.expect("a connection");
    let before = definitions(&mut connection).await;
    for (_, text) in files() {
        execute(&mut connection, &text).await;
    }
    assert_eq!(definitions(&mut connection).await, before);
}

#[tokio::test]
async fn migrating_twice_installs_nothing_the_second_time() {
    let world = World::new().await;
    let version = "select string_agg(proname || xmin::text, ' ' order by proname) from pg_proc
                   where pronamespace = 'signaling'::regnamespace";
    let before: String = world.ask(version).await;
    assert_eq!(
        migrate(&world).await,
        "the schema signaling was up to date already: nothing changed\n"
    );
    assert_eq!(world.ask::<String>(version).await, before);
}

#[tokio::test]
async fn an_older_binary_leaves_the_functions_of_a_newer_one_alone() {
    let world = World::new().await;
    world
        .execute(
            "create or replace function signaling.protocol_version() returns integer
                 language sql immutable parallel safe as 'select 999';
             create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
                 language sql immutable as 'select 999::double precision'",
        )
        .await;
    assert_eq!(
        migrate(&world).await,
        "the schema signaling was up to date already: nothing changed\n"
    );
    let found = body_of(&world, "slot_rate").await;
    assert_eq!(found, "select 999::double precision");
    // And a newer set of functions serves it.
    world.run(&["status"]).await;
}

#[tokio::test]
async fn a_worker_whose_functions_are_too_old_does_not_start_and_says_what_to_do() {
    let world = World::new().await;
    world
        .execute(
            "create or replace function signaling.protocol_version() returns integer
                 language sql immutable parallel safe as 'select 0'",
        )
        .await;
    let mut worker = world.worker().start();
    assert_eq!(worker.wait_exit().await, Some(1));
    let stderr = worker.stderr.text();
    let phrases = ["functions are at version 0", "run `worker migrate` first"];
    assert_contains(&stderr, &phrases);
}

#[tokio::test]
async fn a_failed_installation_changes_nothing() {
    let world = World::new().await;
    // A function with another result is dropped first, but not with an application's view of it.
    world
        .execute(
            "drop function signaling.slot_rate cascade;
             create function signaling.slot_rate(limit_per_s double precision) returns text language sql as 'select null';
             create view rates as select signaling.slot_rate(1::double precision);
             create or replace function signaling.hold(app text, kind text, reason text, probe uuid) returns text
                 language sql as 'select null'",
        )
        .await;
    let failed = world.command(&["migrate"]).finish().await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let phrase = "the installation of functions, views and triggers failed: cannot drop function";
    assert!(failed.stderr.contains(phrase), "{failed:?}");
    assert_eq!(body_of(&world, "hold").await, "select null");
    assert_eq!(body_of(&world, "slot_rate").await, "select null");
}

#[tokio::test]
async fn nobody_may_call_a_function_that_nobody_was_granted() {
    let world = World::new().await;
    let stranger = Role::new(&world, "stranger").await;
    let open = "select coalesce(string_agg(oid::regprocedure::text, ', '), '') from pg_proc
                where pronamespace = 'signaling'::regnamespace
                  and (has_function_privilege('public', oid, 'execute') or has_function_privilege('{}', oid, 'execute'))"
        .replace("{}", &stranger.name);
    assert_eq!(world.ask::<String>(&open).await, "");
    let functions: i64 = world
        .ask("select count(*) from pg_proc where pronamespace = 'signaling'::regnamespace")
        .await;
    assert!(functions > 30, "{functions}");

    // A function that is installed anew is closed, too.
    world
        .execute(
            "drop function signaling.hold;
             alter function signaling.release_hold set jit = on",
        )
        .await;
    assert!(migrate(&world).await.starts_with("installed 2 objects"));
    assert_eq!(world.ask::<String>(&open).await, "");
}

#[tokio::test]
async fn a_function_that_discourages_a_plan_compiles_none() {
    // Postgres adds the price of a discouraged plan to its cost, and compiles what is that expensive: open_lane took 180 ms.
    let world = World::new().await;
    let compiled: String = world
        .ask(
            "select coalesce(string_agg(proname, ', '), '') from pg_proc
             where pronamespace = 'signaling'::regnamespace
               and 'enable_seqscan=off' = any (proconfig) and not 'jit=off' = any (proconfig)",
        )
        .await;
    assert_eq!(compiled, "", "these have no `set jit = off`");
}
