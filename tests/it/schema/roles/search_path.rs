//! Another role creates functions, operators, types and tables with the names that the schema's functions use.

use sqlx::PgConnection;

use super::{Role, ask, can, can_not, connect, waiting_message};
use harness::{Postgres, Worker, World};

/// Objects with each name that a function of the schema, a trigger or the worker might use, in the schema `{evil}` of another
/// role. An object that is executed leaves a line in `{evil}.loot`.
const TRAPS: &str = "
    create table {evil}.loot (what text, as_whom text);
    grant insert, select on {evil}.loot to public;
    create function {evil}.catch(what text) returns void language sql
        as $$ insert into {evil}.loot values (what, current_user) $$;
    create function {evil}.clock_timestamp() returns timestamptz language sql
        as $$ select {evil}.catch('clock_timestamp'); select pg_catalog.clock_timestamp() $$;
    create function {evil}.pg_notify(text, text) returns void language sql
        as $$ select {evil}.catch('pg_notify') $$;
    create function {evil}.power(integer, integer) returns double precision language sql
        as $$ select {evil}.catch('power(integer)'); select pg_catalog.power($1::float8, $2::float8) $$;
    create function {evil}.power(numeric, double precision) returns double precision language sql
        as $$ select {evil}.catch('power(numeric)'); select pg_catalog.power($1::float8, $2) $$;
    create function {evil}.equals(text, text) returns boolean language sql
        as $$ select {evil}.catch('='); select $1 operator(pg_catalog.=) $2 $$;
    create operator {evil}.= (leftarg = text, rightarg = text, function = {evil}.equals);
    create function {evil}.times(bigint, double precision) returns double precision language sql
        as $$ select {evil}.catch('*'); select $1::float8 operator(pg_catalog.*) $2 $$;
    create operator {evil}.* (leftarg = bigint, rightarg = double precision, function = {evil}.times);
    create function {evil}.equals(oid, integer) returns boolean language sql
        as $$ select {evil}.catch('= of an oid'); select $1 operator(pg_catalog.=) $2::oid $$;
    create operator {evil}.= (leftarg = oid, rightarg = integer, function = {evil}.equals);
    create function {evil}.is_fine(text) returns boolean language sql
        as $$ select {evil}.catch('a type'); select true $$;";

/// The same names in the schemas that a session's default `search_path` names first.
const TEMPORARY_TRAPS: &str = "
    create table if not exists evil.outbox (like signaling.outbox);
    create table if not exists evil.lane (like signaling.lane);
    create table if not exists evil.attempt (like signaling.attempt);
    create table if not exists evil.wakeup (like signaling.wakeup);
    create temp table outbox (like signaling.outbox);
    create temp table lane (like signaling.lane);
    create temp table attempt (like signaling.attempt);
    create temp table wakeup (like signaling.wakeup);
    create temp table inserted (app text);
    insert into lane (app, limit_per_s, configured_per_s, rate_per_s, next_slot_at, hold_probes, rate_at, generation)
        values ('fake', 1, 1, 1, now(), 0, now(), 0);
    insert into wakeup values ('fake', 'infinity');
    insert into inserted values ('fake');
    create domain pg_temp.timestamptz as pg_catalog.timestamptz check ({evil}.is_fine('timestamptz'));
    create domain pg_temp.text as pg_catalog.text check ({evil}.is_fine('text'));";

/// Calls every function that a role may call but `cancel`, and inserts.
const EVERYTHING: [&str; 28] = [
    "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'x')",
    "select signaling.open_lane('default', 100)",
    "select * from signaling.next_due(array['default'], '{-infinity}', '{0}', '{-infinity}', '{0}', '1 s', '2 s', true)",
    "select * from signaling.claim('default', 'c0ffee00-0000-4000-8000-000000000000', 'me', 10, '30 s', '1 s', '0',
                                  'infinity', '-infinity', 0, '-infinity', 0, '2 s', true, '{}')",
    "select * from signaling.release('default', array['c0ffee00-0000-4000-8000-000000000000'::uuid])",
    "select * from signaling.claim('default', 'c0ffee00-0000-4000-8000-000000000000', 'me', 10, '30 s', '1 s', '0',
                                  'infinity', '-infinity', 0, '-infinity', 0, '2 s', true, '{}')",
    "select * from signaling.record('me', array(select id from signaling.outbox where claim_id is not null limit 1),
         '{c0ffee00-0000-4000-8000-000000000000}', '{now}', '{null}', '{null}', '{true}', '{now}', '{500}', '{null}', '{why}',
         '{transient}', '{1 s}', '{unclear}', '{why}')",
    "select * from signaling.expire(array['default'], 'infinity')",
    "select signaling.throttle('default', now(), '0')",
    "select * from signaling.report_worker('c0ffee00-0000-4000-8000-000000000000', 'name', '1', 'host', '{default}',
         '{default}', '{1}', '{1}', '{false}', '{why}')",
    "select signaling.retire_worker('c0ffee00-0000-4000-8000-000000000000')",
    "select signaling.hold('default', 'unavailable', 'why', null)",
    "select signaling.release_hold('default', gen_random_uuid())",
    "select * from signaling.delete_finished(gen_random_uuid(), '1 hour')",
    r#"select signaling.add_minute_stats('[{"minute": "now", "app": "default", "message_sent": 1, "message_delivered": 0,
       "message_offline": 0, "failed": 0, "expired": 0, "unknown": 0, "calls_transient": 0, "calls_throttled": 0,
       "calls_rejected": 0, "calls_unauthorized": 0, "calls_ambiguous": 0, "slots_missed": 0, "call_time": [1],
       "queue_wait": [1]}]')"#,
    "select signaling.refresh_queue_counts()",
    "select signaling.pause('default', 'why')",
    "select signaling.resume('default')",
    "select signaling.set_limit('default', 7)",
    "select signaling.set_limit('default', null)",
    "select signaling.retry('default', array['cancelled'], error_like => '%', dry_run => true)",
    "select signaling.retry('default', array['cancelled'])",
    "select * from signaling.calls('default', '2020-01-01', '2040-01-01')",
    "select signaling.peak_rate('default', '2020-01-01', '2040-01-01')",
    "select signaling.present_rate(1, '2020-01-01', 9, '2030-01-01'), signaling.slot_rate(5)",
    "select signaling.protocol_version()",
    "select * from signaling.delivery_status",
    "select * from signaling.fleet",
];

async fn set_traps(connection: &mut PgConnection, evil: &str) {
    can(connection, &TRAPS.replace("{evil}", evil)).await;
}

/// The roles that executed a function of the attacker.
async fn loot(world: &World, evil: &str) -> Vec<String> {
    let loot = format!("select as_whom from {evil}.loot");
    world.column(&loot).await
}

#[tokio::test]
async fn no_function_looks_for_a_name_where_a_caller_may_have_put_it() {
    let world = World::new().await;
    world.open_lane("default").await;
    world
        .execute("insert into signaling.wakeup values ('default', 'infinity')")
        .await;
    let attacker = Role::granted(&world, "producer").await;
    for kind in ["worker", "operator"] {
        world.run(&["grant", kind, &attacker.name]).await;
    }
    world
        .execute(&format!(
            "create schema evil authorization {}; grant usage on schema evil to public",
            attacker.name
        ))
        .await;
    let mut session = attacker.connect().await;
    set_traps(&mut session, "evil").await;

    // In the attacker's own session, and in that of a superuser who has been talked into the same settings.
    for mut session in [session, connect(&world.url).await] {
        can(&mut session, &TEMPORARY_TRAPS.replace("{evil}", "evil")).await;
        let statement = "set search_path = evil, pg_temp, signaling, pg_catalog";
        can(&mut session, statement).await;
        let reset = "hold = null, hold_since = null, hold_until = null, hold_probes = 0, next_slot_at = 'epoch'";
        world.set_lane(reset).await;
        let waiting = waiting_message(&world).await;
        for statement in EVERYTHING {
            can(&mut session, statement).await;
        }
        let cancel = format!("select signaling.cancel({waiting})");
        assert!(ask::<bool>(&mut session, &cancel).await, "{waiting}");
        assert_eq!(loot(&world, "evil").await, [""; 0]);

        // The traps work: statements that are not the schema's step into them.
        let statement =
            "select clock_timestamp(), 'a'::pg_catalog.text = 'a'::pg_catalog.text, 'x'::text";
        can(&mut session, statement).await;
        assert_eq!(loot(&world, "evil").await.len(), 3);
        world.execute("delete from evil.loot").await;
    }
    let found: i64 = world.ask("select count(*) from evil.outbox").await;
    assert_eq!(found, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_executes_nothing_of_a_schema_in_which_others_may_create() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let operator = Role::granted(&world, "operator").await;
    let attacker = Role::new(&world, "attacker").await;
    // As it is by default up to Postgres 14.
    world
        .execute("grant create on schema public to public")
        .await;
    set_traps(&mut attacker.connect().await, "public").await;

    // The traps work: this fits the types of the arguments better than what the system has.
    let mut session = role.connect().await;
    can(&mut session, "select power(2, 3), 2::bigint * power(2, 3)").await;
    let caught = loot(&world, "public").await;
    assert!(caught.len() >= 2, "{caught:?}");
    assert!(caught.iter().all(|whom| *whom == role.name), "{caught:?}");
    world.execute("delete from public.loot").await;

    let mut worker = world.worker().env("DATABASE_URL", &role.url).start();
    world.set_faults(&["500"]);
    world.insert_many(20).await;
    world.until_lane("hold_probes > 1").await;
    world.set_faults(&["429:count=1"]);
    world.assert_sends().await;
    world.until_all_final().await;
    for arguments in [
        &["status"][..],
        &["pause", "default"],
        &["resume", "default"],
        &["retry", "--all"],
    ] {
        operator.command(arguments).succeeds().await;
    }
    worker.stop().await;
    assert_eq!(loot(&world, "public").await, [""; 0]);
}

#[tokio::test]
async fn a_migration_executes_nothing_of_a_schema_in_which_others_may_create() {
    let world = World::new().await;
    let attacker = Role::new(&world, "attacker").await;
    let url = Postgres::shared().await.empty_database().await;
    let mut owner = connect(&url).await;
    let statement = format!(
        "grant create on schema public to public; set role {}",
        attacker.name
    );
    can(&mut owner, &statement).await;
    set_traps(&mut owner, "public").await;
    can(&mut owner, "reset role").await;
    Worker::on(&url, &["migrate"]).succeeds().await;
    let count = "select count(*) from public.loot";
    assert_eq!(ask::<i64>(&mut owner, count).await, 0);

    // The traps work.
    can(&mut owner, "select 0::oid = 0").await;
    assert_eq!(ask::<i64>(&mut owner, count).await, 1);
}

#[tokio::test]
async fn nobody_can_have_the_trigger_evaluate_their_cast_as_its_owner() {
    let world = World::new().await;
    world.open_lane("default").await;
    world
        .execute("insert into signaling.wakeup values ('default', 'infinity')")
        .await;
    let bait = "
        create type pg_temp.label as enum ('default');
        create temp table loot (as_whom pg_catalog.text);
        create function pg_temp.catch(pg_temp.label) returns pg_catalog.text language plpgsql
            as $$ begin insert into pg_temp.loot values (current_user); return 'default'; end $$;
        create cast (pg_temp.label as pg_catalog.text) with function pg_temp.catch(pg_temp.label) as implicit;
        create temp table bait (app pg_temp.label);";
    let trigger = "
        create trigger notify after insert on bait referencing new table as inserted
            for each statement execute function signaling.notify_workers()";

    for kind in super::KINDS {
        let mut session = Role::granted(&world, kind).await.connect().await;
        can(&mut session, bait).await;
        can_not(&mut session, trigger).await;
    }
    // With the right to call it, it would be done: the trap works.
    let attacker = Role::new(&world, "attacker").await;
    world
        .execute(&format!(
            "grant usage on schema signaling to {name}; grant execute on function signaling.notify_workers to {name}",
            name = attacker.name
        ))
        .await;
    let mut session = attacker.connect().await;
    can(&mut session, &format!("{bait} {trigger}")).await;
    let snap = "grant all on loot to public; insert into bait values ('default')";
    can(&mut session, snap).await;
    let as_whom: String = ask(&mut session, "select min(as_whom)::text from loot").await;
    assert_eq!(as_whom, "postgres");
}

#[tokio::test]
async fn every_function_that_a_role_may_call_says_where_it_looks_for_names() {
    let world = World::new().await;
    for kind in super::KINDS {
        Role::granted(&world, kind).await;
    }
    let wrong = "
        select oid::regprocedure::text from pg_proc
        where pronamespace = 'signaling'::regnamespace
          and 'search_path=pg_catalog, pg_temp' <> all (coalesce(proconfig, '{}'))
          -- Written into the statements that call them: every name in them has its schema.
          and not (proname in ('slot_rate', 'present_rate', 'protocol_version') and prosrc !~ ' [-+*/<>=] ')
          -- Only functions with a search_path call the others.
          and (prosecdef or exists (select from aclexplode(proacl) where grantee <> proowner))";
    let wrong: Vec<String> = world.column(wrong).await;
    assert!(wrong.is_empty(), "no search_path: {wrong:#?}");
}
