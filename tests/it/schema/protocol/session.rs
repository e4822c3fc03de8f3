//! In which sessions the protocol's functions run, and in which they refuse to.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{Claim, database_error, world};
use crate::schema::roles::{Role, owned_world};
use testkit::{World, ask};

/// A call of each function that a worker's role may call, and whether it refuses other isolation levels.
pub(super) const CALLS: [(&str, &str, bool); 21] = [
    ("add_minute_stats", "signaling.add_minute_stats('[]')", true),
    (
        "calls",
        "signaling.calls('default', '2020-01-01', '2040-01-01')",
        false,
    ),
    (
        "claim",
        "signaling.claim('default', gen_random_uuid(), 'me', 1, '30 seconds', '1 second', '0', 'infinity', '-infinity', 0, '-infinity', 0, '2 seconds', true)",
        true,
    ),
    (
        "delete_finished",
        "signaling.delete_finished(gen_random_uuid(), '1 hour')",
        true,
    ),
    (
        "expire",
        "signaling.expire(array['default'], 'infinity')",
        true,
    ),
    (
        "hold",
        "signaling.hold('default', 'unavailable', 'why', null)",
        true,
    ),
    (
        "next_due",
        "signaling.next_due(array['default'], '{-infinity}', '{0}', '{-infinity}', '{0}', '1 second', '2 seconds', true)",
        true,
    ),
    ("open_lane", "signaling.open_lane('default', 102)", true),
    (
        "peak_rate",
        "signaling.peak_rate('default', '2020-01-01', '2040-01-01')",
        false,
    ),
    (
        "present_rate",
        "signaling.present_rate(1, '2020-01-01', 9, '2030-01-01')",
        false,
    ),
    ("protocol_version", "signaling.protocol_version()", false),
    (
        "record",
        "signaling.record('me', '{1}', array[gen_random_uuid()], '{now}', '{null}', '{null}', '{true}', '{now}', '{500}', '{null}', '{why}', '{transient}', '{1 second}')",
        true,
    ),
    (
        "refresh_queue_counts",
        "signaling.refresh_queue_counts()",
        false,
    ),
    (
        "release",
        "signaling.release('default', array[gen_random_uuid()])",
        true,
    ),
    (
        "release_hold",
        "signaling.release_hold('default', gen_random_uuid())",
        true,
    ),
    (
        "report_worker",
        "signaling.report_worker('c0ffee00-0000-4000-8000-000000000000', 'me', '1', 'host', '{default}', '{default}', '{1}', '{1}', '{false}', '{null}')",
        true,
    ),
    (
        "retire_worker",
        "signaling.retire_worker(gen_random_uuid())",
        true,
    ),
    ("sequences_behind", "signaling.sequences_behind()", false),
    (
        "set_messages_back",
        "signaling.set_messages_back('default', '30 s', true, '-infinity', 0)",
        true,
    ),
    ("slot_rate", "signaling.slot_rate(5)", false),
    (
        "throttle",
        "signaling.throttle('default', now(), '0')",
        true,
    ),
];

async fn try_to(session: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(session)
        .await
        .map(|_| ())
}

async fn execute(session: &mut PgConnection, statement: &str) {
    try_to(session, statement)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[tokio::test]
async fn the_calls_here_are_those_of_all_functions_that_a_worker_may_call() {
    let world = world().await;
    let worker = Role::granted(&world, "worker").await;
    let granted: Vec<String> = sqlx::query_scalar(
        "select proname::text from pg_proc
         where pronamespace = 'signaling'::regnamespace and has_function_privilege($1, oid, 'execute')
         order by proname",
    )
    .bind(worker.name)
    .fetch_all(&world.pool)
    .await
    .expect("functions");
    assert!(
        CALLS.iter().map(|(name, ..)| *name).eq(granted.iter()),
        "{granted:?}"
    );
}

#[tokio::test]
async fn functions_that_lock_and_write_refuse_all_isolation_levels_but_read_committed() {
    let world = world().await;
    let mut session = world.connect().await;
    for (name, call, refuses) in CALLS {
        for level in ["repeatable read", "serializable"] {
            execute(&mut session, &format!("begin isolation level {level}")).await;
            let called = try_to(&mut session, &format!("select * from {call}")).await;
            assert_eq!(called.is_err(), refuses, "{name} in {level}: {called:?}");
            if let Err(error) = called {
                let level = level.to_uppercase();
                let expected = format!(
                    "the worker's functions run in READ COMMITTED, and this transaction is {level}"
                );
                assert_eq!(database_error(error), ("25000".into(), expected), "{name}");
            }
            execute(&mut session, "rollback").await;
        }
        execute(&mut session, &format!("select * from {call}")).await;
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
    let more = [
        ("cancel", "signaling.cancel(1)", true),
        ("retry", "signaling.retry('default')", true),
    ];
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
    let calls = CALLS.into_iter().chain(more);
    for (_, call, _) in calls.filter(|(name, ..)| reads_messages.contains(name)) {
        execute(&mut session, "begin").await;
        let error = try_to(&mut session, &format!("select * from {call}"))
            .await
            .expect_err(&format!("{call}: it is silent"));
        let (code, message) = database_error(error);
        assert_eq!(code, "42501", "{call}: {message}");
        assert!(message.contains("row-level security"), "{call}: {message}");
        execute(&mut session, "rollback").await;
    }
}

#[tokio::test]
async fn two_workers_never_claim_the_same_message() {
    let world: World = world().await;
    world.insert_many(200).await;
    let claim = Claim {
        max_messages: 20,
        horizon: "10 seconds",
        ..Claim::default()
    };
    let claims = (0..10).map(|_| claim.run(&world.pool));
    let claims = futures_util::future::join_all(claims).await;
    let mut ids: Vec<i64> = claims.iter().flat_map(super::Claimed::ids).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=200));
    let mut slots: Vec<_> = claims
        .iter()
        .flat_map(|claim| claim.messages.iter().map(|message| message.slot_at))
        .collect();
    slots.sort_unstable();
    assert!(
        slots
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= super::SPACING)
    );
}
