//! A damaged schema: `worker check` names each object, `worker migrate` makes functions, views and triggers again, and a
//! worker does not start without objects that it needs.

use harness::{World, assert_contains, peer};
use serde_json::{Value, json};

use super::{assert_finding, assert_line, check, report};
use crate::schema::roles::Role;

const UP_TO_DATE: &str = "the schema signaling was up to date already: nothing changed";

async fn assert_migrate_prints(world: &World, line: &str) {
    let printed = world.run(&["migrate"]).await;
    let is_printed = printed.lines().any(|printed| printed == line);
    assert!(is_printed, "{line:?}: {printed}");
}

async fn assert_migrate_installs(world: &World, objects: u32) {
    assert_migrate_prints(world, &format!("installed {objects} objects")).await;
}

async fn assert_is_whole(world: &World) {
    let phrases = ["as this version makes them"];
    assert_finding(check(world), "ok", "objects", &phrases).await;
    assert_migrate_prints(world, UP_TO_DATE).await;
}

/// Damages the schema, and asserts that a check names objects for `worker migrate`.
async fn assert_damage_is_found(world: &World, damage: &str, phrases: &[&str]) {
    world.execute(damage).await;
    let text = assert_finding(check(world), "FAIL", "objects", phrases).await;
    assert_line(&text, "FAIL", "objects", &["run `worker migrate`"]);
}

async fn worker_refuses_to_start(world: &World, phrases: &[&str]) {
    world.worker().fails(1, phrases).await;
}

/// The findings about objects at a level, with the advice of each.
async fn findings(world: &World, level: &str) -> Vec<(String, String)> {
    let checked = check(world).arg("--json").finish().await;
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).expect("findings");
    let of_objects = findings
        .iter()
        .filter(|finding| finding["subject"] == "objects" && finding["level"] == level);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_objects
        .map(|finding| (text(&finding["found"]), text(&finding["advice"])))
        .collect()
}

#[tokio::test]
async fn a_dropped_function_is_named_and_made_again_with_its_privileges() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute("do $$ begin execute (select 'drop function ' || oid::regprocedure || ' cascade' from pg_proc
                                       where oid = to_regproc('signaling.claim')); end $$")
        .await;
    let check = || check(&world).env("DATABASE_URL", &role.url);
    let phrases = ["missing: function signaling.claim", "run `worker migrate`"];
    let text = assert_finding(check(), "FAIL", "objects", &phrases).await;
    assert!(!text.contains("grant worker"), "a grant would fail: {text}");
    let phrases = ["lacks function signaling.claim: run `worker migrate`"];
    worker_refuses_to_start(&world, &phrases).await;

    assert_migrate_installs(&world, 1).await;
    assert_finding(check(), "ok", "privileges", &[]).await;
    assert_is_whole(&world).await;
}

#[tokio::test]
async fn a_missing_version_function_is_made_again() {
    let world = World::new().await;
    world
        .execute("drop function signaling.protocol_version")
        .await;
    let missing = "lacks function signaling.protocol_version";
    assert_finding(
        check(&world),
        "FAIL",
        "schema",
        &[missing, "worker migrate"],
    )
    .await;
    let refusal = format!("{missing}: run `worker migrate`");
    worker_refuses_to_start(&world, &[&refusal]).await;
    assert_migrate_installs(&world, 1).await;

    // A function of another type returns no version.
    world
        .execute(
            "drop function signaling.protocol_version;
             create function signaling.protocol_version() returns text language sql as 'select null'",
        )
        .await;
    report(check(&world), 1).await;
    assert_migrate_installs(&world, 1).await;
    assert_is_whole(&world).await;
}

#[tokio::test]
async fn a_function_that_a_person_has_changed_in_any_way_is_replaced() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let owner = Role::new(&world, "owner").await;
    let change_owner = format!("alter function signaling.hold owner to {}", owner.name);
    let replaced = "create or replace function signaling.slot_rate(limit_per_s double precision) returns double precision
                        language sql immutable parallel safe as 'select 1::double precision'";
    for change in [
        replaced,
        "alter function signaling.claim security invoker",
        "alter function signaling.claim reset search_path",
        "alter function signaling.claim set jit = on",
        "alter function signaling.slot_rate volatile",
        "alter function signaling.slot_rate strict",
        // Its owner may not write the tables, so each call of a worker would fail.
        &change_owner,
        // A call would be ambiguous, and a grant by name fails.
        "create function signaling.claim(text) returns text language sql as 'select null'",
        "drop function signaling.slot_rate;
         create function signaling.slot_rate(text) returns text language sql as 'select null'",
    ] {
        let phrase = "different or disabled: function signaling.";
        assert_damage_is_found(&world, change, &[phrase]).await;
        assert_migrate_installs(&world, 1).await;
        assert_is_whole(&world).await;
        let check = check(&world).env("DATABASE_URL", &role.url);
        assert_finding(check, "ok", "privileges", &[]).await;
    }
}

#[tokio::test]
async fn a_dropped_or_disabled_trigger_is_named_and_made_again() {
    let world = World::new().await;
    for (damage, phrases, installed) in [
        (
            "drop function signaling.check_message cascade",
            ["function signaling.check_message", "trigger check_message on signaling.outbox"],
            2,
        ),
        (
            "drop trigger check_message on signaling.outbox; drop trigger take_free_id on signaling.attempt",
            ["missing: trigger take_free_id on signaling.attempt", "trigger check_message on signaling.outbox"],
            2,
        ),
        (
            "alter table signaling.outbox disable trigger check_message",
            ["different or disabled", "trigger check_message"],
            1,
        ),
        (
            "alter table signaling.outbox disable trigger user",
            ["trigger check_message", "trigger notify_workers"],
            2,
        ),
        (
            "drop trigger check_message on signaling.outbox;
             create trigger check_message before insert on signaling.outbox
                 for each row when (new.app = 'default') execute function signaling.check_message()",
            ["different or disabled", "trigger check_message"],
            1,
        ),
    ] {
        assert_damage_is_found(&world, damage, &phrases).await;
        // Without the trigger, no statement fails, so workers keep sending.
        let worker = world.worker().start();
        worker.until_logged("schema_differs").await;
        drop(worker);
        assert_migrate_installs(&world, installed).await;
        let refused = peer(json!({"sender": ""}));
        assert!(world.try_insert(&refused).await.is_err());
        assert_is_whole(&world).await;
    }
}

#[tokio::test]
async fn a_migration_that_gets_no_lock_for_a_trigger_gives_up_and_names_the_holder() {
    let world = World::new().await;
    world
        .execute("drop trigger check_message on signaling.outbox")
        .await;
    let holder = world
        .open_transaction("lock table signaling.outbox in row exclusive mode")
        .await;
    let phrase =
        "the installation of functions, views and triggers got no lock within 1s: held by process";
    let migrate = world.command(&["migrate", "--lock-wait", "1s"]);
    migrate.fails(1, &[phrase]).await;
    holder.rollback().await.expect("ended");
    assert_migrate_installs(&world, 1).await;
    assert_is_whole(&world).await;
}

#[tokio::test]
async fn a_dropped_or_replaced_view_is_named_and_made_again_with_its_privileges() {
    let world = World::new().await;
    let reader = Role::granted(&world, "reader").await;
    for (damage, phrase, installed) in [
        (
            "drop view signaling.delivery cascade",
            "missing: view signaling.delivery; missing: view signaling.delivery_status",
            2,
        ),
        (
            "create or replace view signaling.obstacle as
                 select app, 1 as rank, 'paused' as kind, '' as waits_for, '' as sentence from signaling.lane",
            "different or disabled: view signaling.obstacle",
            1,
        ),
        // With other columns, it can't be replaced, and the other views read it.
        (
            "drop view signaling.obstacle cascade; create view signaling.obstacle as select 1 as one",
            "different or disabled: view signaling.obstacle",
            5,
        ),
    ] {
        assert_damage_is_found(&world, damage, &[phrase]).await;
        assert_migrate_installs(&world, installed).await;
        assert_is_whole(&world).await;
        reader.command(&["status"]).succeeds().await;
    }
    let comment: Option<String> = world
        .ask("select obj_description('signaling.obstacle'::regclass)")
        .await;
    assert!(comment.is_some());
}

#[tokio::test]
async fn lost_tables_and_columns_are_named_and_stop_workers_and_migrations() {
    let world = World::new().await;
    world
        .execute("alter table signaling.outbox drop column request_id cascade")
        .await;
    let found = findings(&world, "fail").await;
    let name = "the column request_id of signaling.outbox is missing";
    let finding = found.iter().find(|(found, _)| found == name);
    let (_, advice) = finding.unwrap_or_else(|| panic!("{found:?}"));
    assert_contains(advice, &["add column request_id text"]);
    let lacking = "lacks column request_id of signaling.outbox";
    worker_refuses_to_start(&world, &[lacking, "worker check"]).await;
    world.command(&["migrate"]).fails(1, &[lacking]).await;
    world
        .execute("alter table signaling.outbox add column request_id text")
        .await;
    // Its views went with the column.
    assert_migrate_installs(&world, 2).await;
    assert_is_whole(&world).await;

    world.execute("drop table signaling.refused cascade").await;
    let found = findings(&world, "fail").await;
    let names: Vec<_> = found.iter().map(|(found, _)| found.as_str()).collect();
    let is_named = names.contains(&"the table signaling.refused is missing");
    assert!(is_named, "{names:?}");
    let has_column = names.iter().any(|name| name.contains("column"));
    assert!(!has_column, "{names:?}");
    worker_refuses_to_start(&world, &["lacks table signaling.refused"]).await;
}

#[tokio::test]
async fn constraints_indexes_and_defaults_are_named_with_the_statement_that_makes_them() {
    let world = World::new().await;
    for (damage, level, name) in [
        (
            "alter table signaling.outbox drop constraint attempts_is_negative",
            "fail",
            "the constraint attempts_is_negative on signaling.outbox is missing",
        ),
        (
            "alter table signaling.attempt drop constraint attempt_message_id_fkey",
            "fail",
            "the constraint attempt_message_id_fkey on signaling.attempt is missing",
        ),
        (
            "drop index signaling.outbox_dedupe",
            "fail",
            "the index outbox_dedupe on signaling.outbox is missing",
        ),
        // As `create index concurrently` leaves it behind when it fails.
        (
            "update pg_index set indisvalid = false where indexrelid = 'signaling.outbox_retries'::regclass",
            "fail",
            "the index outbox_retries on signaling.outbox differs",
        ),
        (
            "drop index signaling.outbox_retries; create index outbox_retries on signaling.outbox (app)",
            "fail",
            "the index outbox_retries on signaling.outbox differs",
        ),
        (
            "alter table signaling.lane drop constraint rate_per_s_is_not_positive,
                 add constraint rate_per_s_is_not_positive check (true)",
            "warn",
            "the constraint rate_per_s_is_not_positive on signaling.lane differs: CHECK (true)",
        ),
        (
            "alter table signaling.attempt disable trigger all",
            "warn",
            "the constraint attempt_message_id_fkey on signaling.attempt differs",
        ),
        (
            "alter table signaling.outbox alter column max_attempts drop default",
            "warn",
            "the column max_attempts of signaling.outbox differs: integer not null",
        ),
    ] {
        world.execute(damage).await;
        let found = findings(&world, level).await;
        let [(found, advice)] = &found[..] else {
            panic!("{damage}: {found:#?}");
        };
        assert!(found.starts_with(name), "{found}");
        let is_missing = found.ends_with("is missing");
        let migrated = world.command(&["migrate"]).finish().await;
        assert_eq!(migrated.code, Some(i32::from(is_missing)), "{migrated:?}");
        let says_nothing_changed = migrated.stdout.contains("nothing changed");
        assert!(!(is_missing && says_nothing_changed), "{migrated:?}");

        if let Some((_, statement)) = advice.split_once("run `") {
            let statement = statement.trim_end_matches('`');
            // An index can't be dropped and built concurrently in one transaction.
            let separator = if statement.starts_with("drop index") {
                "; "
            } else {
                "\0"
            };
            for statement in statement.split(separator) {
                world.execute(statement).await;
            }
        } else {
            assert!(advice.ends_with("integer default 10 not null"), "{advice}");
            world
                .execute("alter table signaling.outbox alter column max_attempts set default 10")
                .await;
        }
        assert_is_whole(&world).await;
    }
    world
        .execute("alter table signaling.refused set unlogged")
        .await;
    let found = findings(&world, "warn").await;
    let name = "the table signaling.refused differs: table r not logged";
    assert_eq!(found[0].0, name);
}

#[tokio::test]
async fn objects_of_the_application_and_newer_schemas_are_no_damage() {
    let world = World::new().await;
    world
        .execute(
            "alter table signaling.outbox add column shop text;
             create index by_shop on signaling.outbox (shop);
             create function signaling.shop() returns text language sql as 'select null';
             create view signaling.shops as select shop from signaling.outbox;
             alter index signaling.outbox_retries set (fillfactor = 80)",
        )
        .await;
    assert_is_whole(&world).await;
    world
        .execute(
            "insert into signaling.schema_migrations (version, description, success, checksum, execution_time)
                 values (1000, 'later', true, '', 0);
             drop index signaling.outbox_sent",
        )
        .await;
    assert_finding(check(&world), "ok", "objects", &["the schema is newer"]).await;
    assert_migrate_prints(&world, UP_TO_DATE).await;
}
