//! A database that is brought up to date: roles that were granted a kind keep up with it.

use super::{Role, can, can_not};
use testkit::{World, assert_contains};

/// A function of each kind that no other kind may call, or that all may; with a call of it.
const FUNCTIONS: [(&str, &[&str], &str); 4] = [
    (
        "cancel",
        &["producer", "operator"],
        "select signaling.cancel(1)",
    ),
    (
        "hold",
        &["worker"],
        "select signaling.hold('default', 'unavailable', 'why', null)",
    ),
    (
        "resume",
        &["operator"],
        "select signaling.resume('default')",
    ),
    (
        "peak_rate",
        &["worker", "operator", "reader"],
        "select signaling.peak_rate('default', '2020-01-01', '2040-01-01')",
    ),
];

/// Takes functions away, so that the next `worker migrate` meets a database that never had them.
async fn forget_functions(world: &World) {
    for (name, ..) in FUNCTIONS {
        world
            .execute(&format!("drop function signaling.{name}"))
            .await;
    }
}

async fn migrate(world: &World) {
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
    forget_functions(&world).await;
    migrate(&world).await;
    for (kind, role) in roles {
        let mut session = role.connect().await;
        for (_, kinds, call) in FUNCTIONS {
            if kinds.contains(&kind) {
                can(&mut session, call).await;
            } else {
                can_not(&mut session, call).await;
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
            "cancels_alone",
            "execute on function signaling.protocol_version",
        ),
    ] {
        let role = Role::new(&world, name).await;
        world
            .execute(&format!(
                "grant usage on schema signaling to {0}; grant {grants} to {0}",
                role.name
            ))
            .await;
        let before = super::granting::rights(&world, &role.name).await;
        roles.push((role, before));
    }
    forget_functions(&world).await;
    migrate(&world).await;
    for (role, before) in roles {
        let found = super::granting::rights(&world, &role.name).await;
        assert_eq!(found, before, "{}", role.name);
    }
}

#[tokio::test]
async fn a_grant_and_a_migration_at_once_both_succeed() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    for _ in 0..5 {
        world.execute(testkit::ALTER_EVERY_FUNCTION).await;
        let mut migrating = world.command(&["migrate"]).start();
        let mut granting: Vec<_> = ["worker", "reader", "operator", "producer"]
            .map(|kind| world.command(&["grant", kind, &role.name]).start())
            .into();
        for command in granting.iter_mut().chain([&mut migrating]) {
            let found = command.wait_exit().await;
            assert_eq!(found, Some(0), "{}", command.stderr.text());
        }
    }
}
