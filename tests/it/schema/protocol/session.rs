//! In which sessions the protocol's functions run, and in which they refuse to.

use super::{Claim, database_error, world};
use crate::schema::roles::{Role, owned_world};
use crate::schema::try_to;
use harness::{ask, execute};

/// A call of each function that a worker's role may call and that refuses other isolation levels than `read committed`.
pub(super) const READ_COMMITTED_ONLY: [&str; 14] = [
    "add_minute_stats('[]')",
    "claim('default', gen_random_uuid(), 'me', 1, '30 seconds', '1 second', '0', 'infinity', '-infinity', 0, '-infinity', 0, '2 seconds', true)",
    "delete_finished(gen_random_uuid(), '1 hour')",
    "expire(array['default'], 'infinity')",
    "hold('default', 'unavailable', 'why', null)",
    "next_due(array['default'], '{-infinity}', '{0}', '{-infinity}', '{0}', '1 second', '2 seconds', true)",
    "open_lane('default', 102)",
    "record('me', '{1}', array[gen_random_uuid()], '{now}', '{null}', '{null}', '{true}', '{now}', '{500}', '{null}', '{why}', '{transient}', '{1 second}')",
    "release('default', array[gen_random_uuid()])",
    "release_hold('default', gen_random_uuid())",
    "report_worker('c0ffee00-0000-4000-8000-000000000000', 'me', '1', 'host', '{default}', '{default}', '{1}', '{1}', '{false}', '{null}')",
    "retire_worker(gen_random_uuid())",
    "set_messages_back('default', '30 s', true, '-infinity', 0)",
    "throttle('default', now(), '0')",
];

/// A call of each other function that a worker's role may call.
pub(super) const ANY_LEVEL: [&str; 7] = [
    "calls('default', '2020-01-01', '2040-01-01')",
    "peak_rate('default', '2020-01-01', '2040-01-01')",
    "present_rate(1, '2020-01-01', 9, '2030-01-01')",
    "protocol_version()",
    "refresh_queue_counts()",
    "sequences_behind()",
    "slot_rate(5)",
];

/// The name of the function in a call.
fn name(call: &str) -> &str {
    call.split_once('(').expect("arguments").0
}

#[tokio::test]
async fn the_calls_here_are_those_of_all_functions_that_a_worker_may_call() {
    let world = world().await;
    let worker = Role::granted(&world, "worker").await;
    let granted: Vec<String> = world
        .column(&format!(
            "select proname::text from pg_proc
             where pronamespace = 'signaling'::regnamespace and has_function_privilege('{}', oid, 'execute')
             order by proname collate \"C\"",
            worker.name
        ))
        .await;
    let mut called: Vec<&str> = READ_COMMITTED_ONLY
        .into_iter()
        .chain(ANY_LEVEL)
        .map(name)
        .collect();
    called.sort_unstable();
    assert_eq!(called, granted);
}

#[tokio::test]
async fn functions_that_lock_and_write_refuse_all_isolation_levels_but_read_committed() {
    let world = world().await;
    let mut session = world.connect().await;
    for level in ["repeatable read", "serializable"] {
        let begin = format!("begin isolation level {level}");
        for call in READ_COMMITTED_ONLY {
            execute(&mut session, &begin).await;
            let called = try_to(&mut session, &format!("select * from signaling.{call}")).await;
            let error = database_error(called.expect_err(call));
            let expected = format!(
                "the worker's functions run in READ COMMITTED, and this transaction is {}",
                level.to_uppercase()
            );
            assert_eq!((error.code(), error.message()), ("25000", &*expected));
            execute(&mut session, "rollback").await;
        }
        for call in ANY_LEVEL {
            let call = format!("{begin}; select * from signaling.{call}; rollback");
            execute(&mut session, &call).await;
        }
    }
    for call in READ_COMMITTED_ONLY.into_iter().chain(ANY_LEVEL) {
        let call = format!("select * from signaling.{call}");
        execute(&mut session, &call).await;
    }
}

#[tokio::test]
async fn a_claim_is_flushed_where_the_session_would_not_wait_for_that() {
    let world = world().await;
    let mut session = world.connect().await;
    execute(&mut session, "set synchronous_commit = off; begin").await;
    Claim::default().run(&mut session).await;
    let during: String = ask(&mut session, "show synchronous_commit").await;
    execute(&mut session, "commit").await;
    let after: String = ask(&mut session, "show synchronous_commit").await;
    assert_eq!((&*during, &*after), ("local", "off"));
}

#[tokio::test]
async fn a_function_fails_where_row_level_security_would_hide_messages_from_it() {
    // A superuser sees every row in any case.
    let world = owned_world().await;
    let mut session = world.connect().await;
    execute(&mut session, "select signaling.open_lane('default', 102)").await;
    world.insert_many(1).await;
    let reads_messages = [
        "claim",
        "expire",
        "next_due",
        "release",
        "record",
        "delete_finished",
        "refresh_queue_counts",
        "cancel",
        "retry",
    ];
    let statement =
        "alter table signaling.outbox enable row level security, force row level security";
    execute(&mut session, statement).await;
    let calls = READ_COMMITTED_ONLY.into_iter().chain(ANY_LEVEL);
    let calls = calls.chain(["cancel(1)", "retry('default')"]);
    for call in calls.filter(|call| reads_messages.contains(&name(call))) {
        execute(&mut session, "begin").await;
        let called = try_to(&mut session, &format!("select * from signaling.{call}")).await;
        let error = database_error(called.expect_err(call));
        assert_eq!(error.code(), "42501", "{call}: {error}");
        assert!(error.message().contains("row-level security"), "{error}");
        execute(&mut session, "rollback").await;
    }
}

#[tokio::test]
async fn two_workers_never_claim_the_same_message() {
    let world = world().await;
    world.insert_many(200).await;
    let claim = Claim {
        horizon: "10 seconds",
        ..Claim::of_at_most(20)
    };
    let claims = (0..10).map(|_| claim.run(&world.pool));
    let claims = futures_util::future::join_all(claims).await;
    let mut ids: Vec<i64> = claims.iter().flat_map(super::Claimed::ids).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=200));
    let messages = claims.iter().flat_map(|claim| &claim.messages);
    let mut slots: Vec<_> = messages.map(|message| message.slot_at).collect();
    slots.sort_unstable();
    let mut pairs = slots.windows(2);
    assert!(pairs.all(|pair| pair[1] - pair[0] >= super::SPACING));
}
