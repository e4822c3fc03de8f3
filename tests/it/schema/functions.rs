//! The functions in the database are those of `migrations/functions/`, and `worker migrate` keeps them so.

use super::roles::Role;
use harness::World;

const UP_TO_DATE: &str = "the schema signaling was up to date already: nothing changed\n";

/// Makes `protocol_version()` return this version.
pub(super) async fn set_version(world: &World, version: i32) {
    world
        .execute(&format!(
            "create or replace function signaling.protocol_version() returns integer
             language sql immutable parallel safe as 'select {version}'"
        ))
        .await;
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
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/functions");
    let files = std::fs::read_dir(folder).expect("functions");
    let names = files.map(|file| file.expect("a file").file_name().into_string());
    let mut names: Vec<_> = names
        .map(|name| name.expect("UTF-8").replace(".sql", ""))
        .collect();
    names.sort_unstable();
    let found = "select proname::text from pg_proc where pronamespace = 'signaling'::regnamespace
                 order by proname collate \"C\"";
    assert_eq!(world.column::<String>(found).await, names);
}

#[tokio::test]
async fn migrating_again_installs_nothing_and_leaves_the_messages_alone() {
    let world = World::new().await;
    world.insert_many(1).await;
    let state = "select string_agg(proname || xmin::text, ' ' order by proname) || (select outbox::text from signaling.outbox)
                 from pg_proc where pronamespace = 'signaling'::regnamespace";
    let before: String = world.ask(state).await;
    assert_eq!(world.run(&["migrate"]).await, UP_TO_DATE);
    assert_eq!(world.ask::<String>(state).await, before);
}

#[tokio::test]
async fn an_older_binary_leaves_the_functions_of_a_newer_one_alone() {
    let world = World::new().await;
    set_version(&world, 999).await;
    world
        .execute(
            "create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
                 language sql immutable as 'select 999::double precision'",
        )
        .await;
    assert_eq!(world.run(&["migrate"]).await, UP_TO_DATE);
    let found = body_of(&world, "slot_rate").await;
    assert_eq!(found, "select 999::double precision");
    // And a newer set of functions serves it.
    world.run(&["status"]).await;
}

#[tokio::test]
async fn a_worker_whose_functions_are_too_old_does_not_start_and_says_what_to_do() {
    let world = World::new().await;
    set_version(&world, 0).await;
    let phrases = ["functions are at version 0", "run `worker migrate` first"];
    world.worker().fails(1, &phrases).await;
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
    let phrase = "the installation of functions, views and triggers failed: cannot drop function";
    world.command(&["migrate"]).fails(1, &[phrase]).await;
    assert_eq!(body_of(&world, "hold").await, "select null");
    assert_eq!(body_of(&world, "slot_rate").await, "select null");
}

#[tokio::test]
async fn nobody_may_call_a_function_that_nobody_was_granted() {
    let world = World::new().await;
    let stranger = Role::new(&world, "stranger").await;
    let open = format!(
        "select oid::regprocedure::text from pg_proc
         where pronamespace = 'signaling'::regnamespace
           and (has_function_privilege('public', oid, 'execute') or has_function_privilege('{}', oid, 'execute'))",
        stranger.name
    );
    assert_eq!(world.column::<String>(&open).await, [""; 0]);

    // A function that is installed anew is closed, too.
    world
        .execute(
            "drop function signaling.hold;
             alter function signaling.release_hold set jit = on",
        )
        .await;
    let installed = world.run(&["migrate"]).await;
    assert!(installed.starts_with("installed 2 objects"), "{installed}");
    assert_eq!(world.column::<String>(&open).await, [""; 0]);
}

#[tokio::test]
async fn a_function_that_discourages_a_plan_compiles_none() {
    // A discouraged plan has a cost so high that Postgres would compile it: `open_lane` took 180 ms.
    let world = World::new().await;
    let compiled = "select proname::text from pg_proc
                    where pronamespace = 'signaling'::regnamespace
                      and 'enable_seqscan=off' = any (proconfig) and not 'jit=off' = any (proconfig)";
    let compiled: Vec<String> = world.column(compiled).await;
    assert!(compiled.is_empty(), "without `set jit = off`: {compiled:?}");
}
