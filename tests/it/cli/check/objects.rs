//! A damaged schema: `worker check` names each object, `worker migrate` makes functions, views and triggers again, and a
//! worker does not start without objects that it needs.

use serde_json::{Value, json};
use testkit::{World, assert_contains, execute, peer};

use super::{assert_line, check, said};
use crate::schema::roles::Role;

/// Runs `worker migrate`, which succeeds and prints this line.
async fn migrate(world: &World, line: &str) {
    let migrated = world.run(&["migrate"]).await;
    assert!(
        migrated.lines().any(|printed| printed == line),
        "{line:?}: {migrated}"
    );
}

async fn assert_is_whole(world: &World) {
    let text = said(check(world), 0).await;
    assert_line(&text, "ok", "objects", &["as this version makes them"]);
    migrate(
        world,
        "the schema signaling was up to date already: nothing changed",
    )
    .await;
}

/// A worker refuses to start, and says this.
async fn assert_refused(world: &World, phrases: &[&str]) {
    let mut worker = world.worker().start();
    assert_eq!(worker.wait_exit().await, Some(1));
    let stderr = worker.stderr.text();
    assert_contains(&stderr, phrases);
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
async fn a_dropped_function_is_named_and_made_again_with_its_rights() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute("do $$ begin execute (select 'drop function ' || oid::regprocedure || ' cascade' from pg_proc
                                       where oid = to_regproc('signaling.claim')); end $$")
        .await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 1).await;
    let phrases = ["missing: function signaling.claim", "run `worker migrate`"];
    assert_line(&text, "FAIL", "objects", &phrases);
    assert!(
        !text.contains("grant worker"),
        "the advice is not a grant that fails: {text}"
    );
    assert_refused(
        &world,
        &["lacks function signaling.claim: run `worker migrate`"],
    )
    .await;

    migrate(&world, "installed 1 objects").await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    assert_line(&text, "ok", "rights", &[]);
    assert_is_whole(&world).await;
}

#[tokio::test]
async fn a_missing_version_function_is_made_again() {
    let world = World::new().await;
    world
        .execute("drop function signaling.protocol_version")
        .await;
    let text = said(check(&world), 1).await;
    let phrases = [
        "lacks function signaling.protocol_version",
        "worker migrate",
    ];
    assert_line(&text, "FAIL", "schema", &phrases);
    assert_refused(
        &world,
        &["lacks function signaling.protocol_version: run `worker migrate`"],
    )
    .await;
    migrate(&world, "installed 1 objects").await;

    // Of another type, it says nothing about the version.
    world
        .execute(
            "drop function signaling.protocol_version;
             create function signaling.protocol_version() returns text language sql as 'select null'",
        )
        .await;
    said(check(&world), 1).await;
    migrate(&world, "installed 1 objects").await;
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
        world.execute(change).await;
        let text = said(check(&world), 1).await;
        let phrases = [
            "different or disabled: function signaling.",
            "worker migrate",
        ];
        assert_line(&text, "FAIL", "objects", &phrases);
        migrate(&world, "installed 1 objects").await;
        assert_is_whole(&world).await;
        let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
        assert_line(&text, "ok", "rights", &[]);
    }
}

#[tokio::test]
async fn a_dropped_or_disabled_trigger_is_named_and_made_again() {
    let world = World::new().await;
    let refused = json!({"sender": ""});
    for (damage, phrases, line) in [
        (
            "drop function signaling.check_message cascade",
            ["function signaling.check_message", "trigger check_message on signaling.outbox"],
            "installed 2 objects",
        ),
        (
            "drop trigger check_message on signaling.outbox; drop trigger take_free_id on signaling.attempt",
            ["missing: trigger take_free_id on signaling.attempt", "trigger check_message on signaling.outbox"],
            "installed 2 objects",
        ),
        (
            "alter table signaling.outbox disable trigger check_message",
            ["different or disabled", "trigger check_message"],
            "installed 1 objects",
        ),
        (
            "alter table signaling.outbox disable trigger user",
            ["trigger check_message", "trigger notify_workers"],
            "installed 2 objects",
        ),
        (
            "drop trigger check_message on signaling.outbox;
             create trigger check_message before insert on signaling.outbox
                 for each row when (new.app = 'default') execute function signaling.check_message()",
            ["different or disabled", "trigger check_message"],
            "installed 1 objects",
        ),
    ] {
        world.execute(damage).await;
        let text = said(check(&world), 1).await;
        assert_line(&text, "FAIL", "objects", &phrases);
        // Without the trigger, no statement fails, so workers keep sending.
        let worker = world.worker().start();
        worker.until_logged("schema_differs").await;
        drop(worker);
        migrate(&world, line).await;
        assert!(world.try_insert(&peer(refused.clone())).await.is_err());
        assert_is_whole(&world).await;
    }
}

#[tokio::test]
async fn a_trigger_that_gets_no_lock_leaves_inserts_alone_and_names_who_holds_it() {
    let world = World::new().await;
    world
        .execute("drop trigger check_message on signaling.outbox")
        .await;
    let mut holder = world.pool.begin().await.expect("a transaction");
    execute(
        &mut holder,
        "lock table signaling.outbox in row exclusive mode",
    )
    .await;
    let migrating = world
        .command(&["migrate", "--lock-wait", "1s"])
        .finish()
        .await;
    assert_eq!(migrating.code, Some(1), "{migrating:?}");
    let phrase =
        "the installation of functions, views and triggers got no lock within 1s: held by process";
    assert!(migrating.stderr.contains(phrase), "{migrating:?}");
    holder.rollback().await.expect("ended");
    migrate(&world, "installed 1 objects").await;
    assert_is_whole(&world).await;
}

#[tokio::test]
async fn a_dropped_or_replaced_view_is_named_and_made_again_with_its_rights() {
    let world = World::new().await;
    let reader = Role::granted(&world, "reader").await;
    for (damage, phrase, line) in [
        (
            "drop view signaling.delivery cascade",
            "missing: view signaling.delivery; missing: view signaling.delivery_status",
            "installed 2 objects",
        ),
        (
            "create or replace view signaling.obstacle as
                 select app, 1 as rank, 'paused' as kind, '' as waits_for, '' as sentence from signaling.lane",
            "different or disabled: view signaling.obstacle",
            "installed 1 objects",
        ),
        // With other columns, it can't be replaced, and the other views read it.
        (
            "drop view signaling.obstacle cascade; create view signaling.obstacle as select 1 as one",
            "different or disabled: view signaling.obstacle",
            "installed 5 objects",
        ),
    ] {
        world.execute(damage).await;
        let text = said(check(&world), 1).await;
        assert_line(&text, "FAIL", "objects", &[phrase, "worker migrate"]);
        migrate(&world, line).await;
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
    let lost = [(
        "the column request_id of signaling.outbox is missing",
        "add column request_id text",
    )];
    let found = findings(&world, "fail").await;
    for (name, statement) in lost {
        let finding = found.iter().find(|(found, _)| found == name);
        let (_, advice) = finding.unwrap_or_else(|| panic!("{found:?}"));
        assert!(advice.contains(statement), "{advice}");
    }
    assert_refused(
        &world,
        &[
            "lacks column request_id of signaling.outbox",
            "worker check",
        ],
    )
    .await;
    world
        .command(&["migrate"])
        .fails(1, &["lacks column request_id of signaling.outbox"])
        .await;
    world
        .execute("alter table signaling.outbox add column request_id text")
        .await;
    // Its views went with the column.
    migrate(&world, "installed 2 objects").await;
    assert_is_whole(&world).await;

    world.execute("drop table signaling.refused cascade").await;
    let found = findings(&world, "fail").await;
    let names: Vec<_> = found.iter().map(|(found, _)| found.as_str()).collect();
    assert!(
        names.contains(&"the table signaling.refused is missing"),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.contains("column")),
        "{names:?}"
    );
    assert_refused(&world, &["lacks table signaling.refused"]).await;
}

#[tokio::test]
async fn constraints_indexes_and_defaults_are_named_with_the_statement_that_makes_them() {
    let world = World::new().await;
    for (damage, level, name, repairs_itself) in [
        (
            "alter table signaling.outbox drop constraint attempts_is_negative",
            "fail",
            "the constraint attempts_is_negative on signaling.outbox is missing",
            true,
        ),
        (
            "alter table signaling.attempt drop constraint attempt_message_id_fkey",
            "fail",
            "the constraint attempt_message_id_fkey on signaling.attempt is missing",
            true,
        ),
        (
            "drop index signaling.outbox_dedupe",
            "fail",
            "the index outbox_dedupe on signaling.outbox is missing",
            true,
        ),
        // As `create index concurrently` leaves it behind when it fails.
        (
            "update pg_index set indisvalid = false where indexrelid = 'signaling.outbox_retries'::regclass",
            "fail",
            "the index outbox_retries on signaling.outbox differs",
            true,
        ),
        (
            "drop index signaling.outbox_retries; create index outbox_retries on signaling.outbox (app)",
            "fail",
            "the index outbox_retries on signaling.outbox differs",
            true,
        ),
        (
            "alter table signaling.lane drop constraint rate_per_s_is_not_positive,
                 add constraint rate_per_s_is_not_positive check (true)",
            "warn",
            "the constraint rate_per_s_is_not_positive on signaling.lane differs: CHECK (true)",
            true,
        ),
        (
            "alter table signaling.attempt disable trigger all",
            "warn",
            "the constraint attempt_message_id_fkey on signaling.attempt differs",
            true,
        ),
        (
            "alter table signaling.outbox alter column max_attempts drop default",
            "warn",
            "the column max_attempts of signaling.outbox differs: integer not null",
            false,
        ),
    ] {
        world.execute(damage).await;
        let found = findings(&world, level).await;
        let [(what, advice)] = &found[..] else {
            panic!("{damage}: {found:#?}");
        };
        assert!(what.starts_with(name), "{what}");
        let migrated = world.command(&["migrate"]).finish().await;
        let exits = i32::from(what.ends_with("is missing"));
        assert_eq!(migrated.code, Some(exits), "{migrated:?}");
        assert!(
            !migrated.stdout.contains("nothing changed") || exits == 0,
            "{migrated:?}"
        );
        if repairs_itself {
            let (_, statement) = advice.split_once("run `").expect("a statement");
            let statement = statement.trim_end_matches('`');
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
    assert_eq!(
        found[0].0,
        "the table signaling.refused differs: table r not logged"
    );
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
    let text = said(check(&world), 0).await;
    assert_line(&text, "ok", "objects", &["the schema is newer"]);
    migrate(
        &world,
        "the schema signaling was up to date already: nothing changed",
    )
    .await;
}
