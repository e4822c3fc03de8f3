//! `worker grant` itself.

use tokio::task::JoinSet;

use super::{KINDS, Role, can, connect};
use crate::schema::INSERT;
use harness::{Worker, World};

/// Every privilege of a role in the schema, and whether it may pass it on.
pub(super) async fn privileges(world: &World, role: &str) -> Vec<String> {
    world
        .column(&format!(
            "select format('%s %s %s', what, privilege_type, is_grantable) from (
                 select 'schema ' || nspname, nspacl from pg_namespace
                 union all select oid::regclass::text, relacl from pg_class
                 union all select attrelid::regclass || '.' || attname, attacl from pg_attribute
                 union all select oid::regprocedure::text, proacl from pg_proc) as object (what, acl)
             cross join lateral aclexplode(acl)
             where grantee = (select oid from pg_roles where rolname = $role${role}$role$) order by 1"
        ))
        .await
}

async fn printed(kind: &str, role: &str) -> String {
    Worker::new(&["grant", "--print", kind, role])
        .succeeds()
        .await
}

#[tokio::test]
async fn the_sql_that_is_printed_gives_the_same_privileges_as_the_command() {
    let world = World::new().await;
    for kind in KINDS {
        let by_command = Role::granted(&world, kind).await;
        let by_hand = Role::new(&world, &format!("{kind}_by_hand")).await;
        let mut owner = connect(&world.url).await;
        let script = printed(kind, &by_hand.name).await;
        can(&mut owner, &script).await;
        let expected = privileges(&world, &by_command.name).await;
        assert!(expected.len() > 3, "{expected:?}");
        assert_eq!(privileges(&world, &by_hand.name).await, expected);
        assert!(
            expected.iter().all(|privilege| privilege.ends_with(" f")),
            "{expected:?}"
        );

        // Again changes nothing, either way.
        can(&mut owner, &script).await;
        let granted = world.run(&["grant", kind, &by_command.name]).await;
        let phrase = format!("{} has the privileges of the kind {kind}", by_command.name);
        assert!(granted.starts_with(&phrase), "{granted}");
        assert_eq!(privileges(&world, &by_hand.name).await, expected);
        assert_eq!(privileges(&world, &by_command.name).await, expected);
    }
}

#[tokio::test]
async fn what_is_printed_fits_a_screen() {
    const LINES: usize = 24;
    const COLUMNS: usize = 120;
    for kind in KINDS {
        let script = printed(kind, "signaling_worker").await;
        let lines: usize = script
            .lines()
            .map(|line| line.chars().count().div_ceil(COLUMNS).max(1))
            .sum();
        assert!(lines <= LINES, "{kind}: {lines} lines:\n{script}");
        assert!(
            script.starts_with("begin;\n") && script.ends_with("commit;\n"),
            "{script}"
        );
    }
}

#[tokio::test]
async fn a_role_may_have_any_name_and_its_name_is_never_sql() {
    let world = World::new().await;
    let database: String = world.ask("select current_database()::text").await;
    let name = format!(r#"a "b"; drop schema signaling cascade; -- {database}"#);
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    world.execute(&format!("create role {quoted}")).await;
    world.run(&["grant", "reader", &name]).await;
    let by_command = privileges(&world, &name).await;
    assert!(!by_command.is_empty());
    world
        .execute(&format!(
            "drop owned by {quoted}; {}",
            printed("reader", &name).await
        ))
        .await;
    assert_eq!(privileges(&world, &name).await, by_command);
}

#[tokio::test]
async fn a_role_that_can_not_be_given_privileges_is_refused_with_what_to_do() {
    let world = World::new().await;
    for (kind, role, code, phrase) in [
        (
            "producer",
            "nobody",
            1,
            "`create role \"nobody\" login password",
        ),
        ("producer", "Postgres", 1, "there is no role Postgres"),
        ("producer", "public", 2, "no roles"),
        ("producer", "none", 2, "no roles"),
        ("producer", "", 2, "1 to 63 bytes"),
        ("producer", &"x".repeat(64), 2, "1 to 63 bytes"),
        ("owner", "postgres", 2, "producer, worker, operator, reader"),
    ] {
        let grant = world.command(&["grant", kind, role]);
        grant.fails(code, &[phrase]).await;
    }
}

#[tokio::test]
async fn a_role_that_can_not_log_in_is_granted_its_privileges_with_a_note() {
    let world = World::new().await;
    let role = Role::new(&world, "group").await.name;
    world.execute(&format!("alter role {role} nologin")).await;
    let granted = world.run(&["grant", "reader", &role]).await;
    let note = format!("but {role} can't log in: run `grant \"{role}\" to LOGIN_ROLE`");
    assert!(granted.contains(&note), "{granted}");
}

/// Without a lock, concurrent grants fail with `tuple concurrently updated`.
#[tokio::test]
async fn grants_that_are_made_at_once_all_succeed() {
    let world = World::new().await;
    let mut commands = Vec::new();
    for number in 0..6 {
        let kind = KINDS[number % KINDS.len()];
        let role = Role::new(&world, &format!("{kind}_{number}")).await;
        commands.push(world.command(&["grant", kind, &role.name]));
    }
    let mut grants = JoinSet::new();
    for command in commands {
        grants.spawn(command.finish());
    }
    for granted in grants.join_all().await {
        assert_eq!(granted.code, Some(0), "{granted:?}");
    }
}

#[tokio::test]
async fn a_role_that_does_not_own_the_schema_learns_who_can_grant_privileges() {
    let world = World::new().await;
    let worker = Role::granted(&world, "worker").await;
    let reader = Role::new(&world, "reader").await;
    let grant = worker.command(&["grant", "reader", &reader.name]);
    let phrase = "owner of the schema signaling, postgres";
    grant.fails(1, &[phrase]).await;
    assert_eq!(privileges(&world, &reader.name).await, [""; 0]);
}

#[tokio::test]
async fn privileges_suffice_where_public_has_none() {
    let world = World::new().await;
    world
        .execute(
            "revoke all on all functions in schema signaling from public; revoke all on schema public from public",
        )
        .await;
    world.open_lane("default").await;
    for kind in ["worker", "operator", "reader"] {
        let role = Role::granted(&world, kind).await;
        role.command(&["status"]).succeeds().await;
    }
    let producer = Role::granted(&world, "producer").await;
    can(&mut producer.connect().await, INSERT).await;
}
