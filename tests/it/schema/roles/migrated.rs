//! A database that is brought up to date: roles that were granted a kind keep up with it.

use super::{Role, can, can_not};
use harness::{World, assert_contains};

/// Functions, the kinds that may call them, and the arguments of a call.
const FUNCTIONS: [(&str, &str, &str); 4] = [
    ("cancel", "producer operator", "1"),
    ("hold", "worker", "'default', 'unavailable', 'why', null"),
    ("resume", "operator", "'default'"),
    (
        "peak_rate",
        "worker operator reader",
        "'default', '2020-01-01', '2040-01-01'",
    ),
];

/// Migrates a database that never had these functions.
async fn migrate_without_functions(world: &World) {
    for (name, ..) in FUNCTIONS {
        let drop = format!("drop function signaling.{name}");
        world.execute(&drop).await;
    }
    let migrated = world.run(&["migrate"]).await;
    assert_contains(&migrated, &["installed 4 objects"]);
}

#[tokio::test]
async fn a_role_gets_the_new_functions_of_its_kind_and_no_others() {
    let world = World::new().await;
    world.open_lane("default").await;
    let mut roles = Vec::new();
    for kind in super::KINDS {
        roles.push((kind, Role::granted(&world, kind).await));
    }
    migrate_without_functions(&world).await;
    for (kind, role) in roles {
        let mut session = role.connect().await;
        for (name, kinds, arguments) in FUNCTIONS {
            let call = format!("select signaling.{name}({arguments})");
            if kinds.contains(kind) {
                can(&mut session, &call).await;
            } else {
                can_not(&mut session, &call).await;
            }
        }
    }
}

#[tokio::test]
async fn a_role_with_a_few_privileges_by_hand_gets_no_more_of_them() {
    let world = World::new().await;
    let mut roles = Vec::new();
    for (name, grants) in [
        ("inserts_alone", "insert on signaling.outbox"),
        ("reads_stats_alone", "select on signaling.minute_stats"),
        ("pauses_alone", "execute on function signaling.pause"),
        ("claims_alone", "execute on function signaling.claim"),
        (
            "reads_version_alone",
            "execute on function signaling.protocol_version",
        ),
    ] {
        let role = Role::new(&world, name).await;
        let grants = format!(
            "grant usage on schema signaling to {0}; grant {grants} to {0}",
            role.name
        );
        world.execute(&grants).await;
        let before = super::granting::privileges(&world, &role.name).await;
        roles.push((role, before));
    }
    migrate_without_functions(&world).await;
    for (role, before) in roles {
        let found = super::granting::privileges(&world, &role.name).await;
        assert_eq!(found, before, "{}", role.name);
    }
}

#[tokio::test]
async fn a_grant_and_a_migration_at_once_both_succeed() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    for _ in 0..5 {
        world.execute(harness::ALTER_EVERY_FUNCTION).await;
        let mut migrating = world.command(&["migrate"]).start();
        let mut granting: Vec<_> = super::KINDS
            .map(|kind| world.command(&["grant", kind, &role.name]).start())
            .into();
        for command in granting.iter_mut().chain([&mut migrating]) {
            let found = command.wait_exit().await;
            assert_eq!(found, Some(0), "{}", command.stderr.text());
        }
    }
}
