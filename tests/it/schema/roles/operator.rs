//! An operator: pauses, resumes, limits, retries and cancels, and reads like a reader.

use super::{
    Role, ask, can, can_not, can_not_harm_the_schema, can_not_update, list, waiting_message,
};
use harness::{World, assert_contains};

#[tokio::test]
async fn an_operator_can_run_every_command_that_steps_in() {
    let world = World::new().await;
    let role = Role::granted(&world, "operator").await;
    world.open_lane("default").await;
    let waiting = waiting_message(&world).await.to_string();
    let run = async |arguments: &[&str]| role.command(arguments).succeeds().await;
    let has_limit =
        async |limit: i32| -> bool { world.lane(&format!("limit_per_s = {limit}")).await };

    world.pretend_worker("a-worker", "1", "default").await;
    let paused = run(&["pause", "default"]).await;
    assert!(paused.starts_with("default is paused: "), "{paused}");
    assert!(run(&["status"]).await.contains("paused by"));
    assert_eq!(run(&["resume", "default"]).await, "default: resumed\n");
    run(&["limit", "default", "50"]).await;
    assert!(has_limit(50).await);
    run(&["limit", "default", "configured"]).await;
    assert!(has_limit(100).await);
    assert!(run(&["cancel", &waiting]).await.contains("cancelled"));
    run(&["retry", "--status", "cancelled", "--dry-run"]).await;
    assert_eq!(world.count("status = 'cancelled'").await, 1);
    run(&["retry", "--status", "cancelled"]).await;
    assert_eq!(world.count("status = 'pending'").await, 1);
    assert!(run(&["status", "--json"]).await.contains("queued"));
    // An app is adopted from workers that are gone.
    world.execute("delete from signaling.worker").await;
    let adopt = ["adopt", "--environment", "staging", "--cancel-pending"];
    assert!(run(&adopt).await.contains("1 message cancelled"));
}

/// The change took effect, so the command must not fail.
#[tokio::test]
async fn a_role_that_may_change_but_not_read_gets_a_report_of_its_change() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = waiting_message(&world).await.to_string();
    let role = Role::new(&world, "narrow").await;
    world
        .execute(&format!(
            "grant usage on schema signaling to {0}; grant select on signaling.schema_migrations to {0};
             grant execute on function signaling.pause, signaling.resume, signaling.set_limit, signaling.cancel,
                 signaling.retry to {0}",
            role.name
        ))
        .await;
    let limit = ["limit", "default", "configured"];
    for (arguments, phrases) in [
        (
            &["pause", "default"][..],
            &[
                "is paused",
                "can't read the lane",
                "obstacles: permission denied",
            ][..],
        ),
        (&["resume", "default"], &["default: resumed"]),
        (
            &limit,
            &["its configured number of calls/s", "can't read the lane"],
        ),
        (&["cancel", &id], &["is cancelled\n"]),
        (
            &["cancel", "4711"],
            &["it is being sent, is final, or does not exist"],
        ),
        (
            &["retry", "--status", "cancelled", "--id", &id],
            &["1 message of default is due again", "can't read the lane"],
        ),
    ] {
        let finished = role.command(arguments).finish().await;
        let is_done = !arguments.contains(&"4711");
        assert_eq!(finished.code, Some(i32::from(!is_done)), "{finished:?}");
        assert_contains(&finished.stdout, phrases);
    }
}

#[tokio::test]
async fn an_operator_reads_what_a_reader_reads_and_nothing_else() {
    let world = World::new().await;
    let operator = Role::granted(&world, "operator").await;
    let reader = Role::granted(&world, "reader").await;
    let readable = async |role: &Role| {
        let columns = format!(
            "select attrelid::regclass || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
             where relnamespace = 'signaling'::regnamespace and relkind in ('r', 'v') and attnum > 0
               and has_column_privilege('{}', attrelid, attnum, 'select') order by 1",
            role.name
        );
        list(&world, &columns).await
    };
    assert_eq!(readable(&operator).await, readable(&reader).await);
}

#[tokio::test]
async fn an_operator_changes_nothing_but_by_its_functions() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = waiting_message(&world).await;
    let mut operator = Role::granted(&world, "operator").await.connect().await;
    for table in ["signaling.outbox", "signaling.lane", "signaling.attempt"] {
        can_not_update(&world, &mut operator, table).await;
    }
    for statement in [
        "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'x')",
        "select payload from signaling.outbox",
        "select signaling.open_lane('default', 1)",
        "select signaling.hold('default', 'unavailable', 'why', null)",
        "select signaling.release_hold('default', gen_random_uuid())",
        "select signaling.throttle('default', now(), '1 hour')",
        "select signaling.release('default', '{}')",
        "select signaling.expire('{default}', 'infinity')",
        "select signaling.delete_finished(gen_random_uuid(), '1 hour')",
        "select signaling.report_worker(gen_random_uuid(), 'name', '1', 'host', '{}', '{}', '{}', '{}', '{}', '{}')",
        "select signaling.retire_worker(gen_random_uuid())",
    ] {
        can_not(&mut operator, statement).await;
    }
    can_not_harm_the_schema(&world, &mut operator).await;
    let cancelled: bool = ask(&mut operator, &format!("select signaling.cancel({id})")).await;
    assert!(cancelled);
    let statement = "select signaling.retry('default', '{cancelled}')";
    can(&mut operator, statement).await;
}
