//! A database that was restored from a dump, with the programs of Postgres.

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use harness::{Postgres, World, peer};

/// With this setting, the outbox accepts messages that are not pending.
const RESTORING: &str = "-c signaling.restoring=on";

/// Runs a program of Postgres, and returns its output.
async fn run(program: &str, arguments: &[&str], options: &str) -> String {
    let postgres = Postgres::shared().await;
    let output = Command::new(postgres.cluster.program(program))
        .args(arguments)
        .env("PGOPTIONS", options)
        .output()
        .await
        .expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    // pg_restore continues after a table that it can't restore, and reports it.
    assert!(
        !stderr.contains("ERROR") && !stderr.contains("error:"),
        "{program}: {stderr}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a dump of the outbox into a new file. Returns its path.
async fn dump(world: &World, folder: &TempDir, arguments: &[&str]) -> String {
    let file = folder.path().join("dump").display().to_string();
    let mut given = vec![
        "--schema=signaling",
        "--dbname",
        &world.url,
        "--file",
        &file,
    ];
    given.extend(arguments);
    run("pg_dump", &given, "").await;
    file
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A world without the outbox.
async fn world_without_outbox() -> World {
    let world = World::new().await;
    world.execute("drop schema signaling cascade").await;
    world
}

/// The finished messages of a source.
const FINISHED: i32 = 60;
/// The messages that a worker has at the time of the dump. The first of them is at-most-once.
const CLAIMED: i32 = 10;
/// The messages without a claim.
const WAITING: i32 = 5;

/// A world that a worker has served, and that is dumped while a worker has messages.
async fn source() -> World {
    let world = World::new().await;
    let mut worker = world.worker().env("WORKER_NAME", "of the source").start();
    world.set_faults(&["500:count=20"]);
    world.insert_many(FINISHED).await;
    world.until_all_final().await;
    worker.stop().await;
    world.insert_many(CLAIMED + WAITING).await;
    world
        .execute(&format!(
            "update signaling.outbox
             set claim_id = gen_random_uuid(), claimed_by = 'of the source', due_at = clock_timestamp() + interval '3 seconds',
                 at_most_once = id = {FINISHED} + 1
             where status = 'pending' and id <= {FINISHED} + {CLAIMED};
             update signaling.lane set next_slot_at = clock_timestamp(), hold = 'unavailable', hold_reason = 'HTTP 500',
                 hold_since = now(), hold_until = now() + interval '2 seconds', probe_claim_id = gen_random_uuid(),
                 retry_after_until = now() + interval '2 seconds';
             insert into signaling.worker (worker_id, name, version, host, apps, started_at, seen_at)
             values (gen_random_uuid(), 'of the source', '1', 'h', '{{default}}', now(), now())"
        ))
        .await;
    world
}

/// The rows of the tables with messages, in a text.
async fn contents(world: &World) -> String {
    world
        .ask(
            "select concat((select jsonb_agg(outbox order by id)::text from signaling.outbox),
                           (select jsonb_agg(attempt order by id)::text from signaling.attempt))",
        )
        .await
}

/// Starts a worker in a restored database, and checks that it finishes what the source had begun, and nothing else.
async fn serve(world: &World, target: &World) {
    let found = contents(target).await;
    assert_eq!(found, contents(world).await, "every row and column");
    let check = target.worker().as_command(&["check"]).finish().await;
    assert!(check.stdout.contains("ok    sequences"), "{check:?}");

    let _worker = target.worker().start();
    target.until_all_final().await;
    let once = i64::from(FINISHED + 1);
    assert_eq!(target.row(once).await.status, "unknown");
    assert_eq!(target.attempts(once).await[0].outcome, "lost");
    // Messages that the source had finished are not sent again.
    let sent = CLAIMED + WAITING - 1;
    assert_eq!(i32::try_from(target.seen().accepted), Ok(sent));
    let found = target.count("status = 'message_sent'").await;
    assert_eq!(found, i64::from(FINISHED + sent));
    let (id, row) = target.deliver(json!({"payload": "new"})).await;
    assert_eq!(id, i64::from(FINISHED + CLAIMED + WAITING + 1));
    assert_eq!(row.status, "message_sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_only_dump_is_restored_into_a_migrated_database_and_served() {
    let (world, target, folder) = (source().await, World::new().await, folder());
    let file = dump(&world, &folder, &["--data-only"]).await;
    let options = [
        "--no-psqlrc",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
    ];
    let restore = [&options[..], &["--file", &file, &target.url]].concat();
    run("psql", &restore, RESTORING).await;
    serve(&world, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_an_archive_is_restored_into_a_migrated_database_and_served() {
    let (world, target, folder) = (source().await, World::new().await, folder());
    let file = dump(&world, &folder, &["--format=custom"]).await;
    // In an archive, the tables stand in the order of their names, and attempts need their messages.
    let list = run("pg_restore", &["--list", &file], "").await;
    let (messages, others): (Vec<_>, Vec<_>) = list
        .lines()
        .partition(|line| line.contains("TABLE DATA signaling outbox "));
    assert_eq!(messages.len(), 1, "{list}");
    let order = [messages, others].concat().join("\n");
    let order = harness::write(folder.path(), "order", &order);
    let order = order.to_str().expect("a path");
    let options = ["--data-only", "--schema=signaling", "--single-transaction"];
    let files = ["--use-list", order, "--dbname", &target.url, &file];
    run("pg_restore", &[&options[..], &files].concat(), RESTORING).await;
    serve(&world, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_schema_is_restored_into_an_empty_database_and_served() {
    let (world, target, folder) = (source().await, world_without_outbox().await, folder());
    let file = dump(&world, &folder, &["--format=custom"]).await;
    let restore = ["--exit-on-error", "--dbname", &target.url, &file];
    run("pg_restore", &restore, "").await;
    assert_eq!(
        target.run(&["migrate"]).await,
        "the schema signaling was up to date already: nothing changed\n"
    );
    serve(&world, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_restored_without_privileges_is_closed_by_migrate() {
    let (world, target, folder) = (World::new().await, world_without_outbox().await, folder());
    let file = dump(&world, &folder, &["--format=custom"]).await;
    let options = ["--no-privileges", "--no-owner"];
    let restore = [&options[..], &["--dbname", &target.url, &file]].concat();
    run("pg_restore", &restore, "").await;
    let open = "select count(*) from pg_proc where pronamespace = 'signaling'::regnamespace
                and has_function_privilege('public', oid, 'execute')";
    assert!(target.ask::<i64>(open).await > 0);
    target.run(&["migrate"]).await;
    assert_eq!(target.ask::<i64>(open).await, 0);
}

#[tokio::test]
async fn only_a_role_that_could_drop_the_trigger_restores_finished_messages() {
    let world = World::new().await;
    let database: String = world.ask("select current_database()::text").await;
    let role = format!("inserter_of_{database}");
    world
        .execute(&format!(
            "create role {role};
             grant usage on schema signaling to {role};
             grant insert on signaling.outbox to {role}"
        ))
        .await;
    let refused = async |role: &str, setting: &str| {
        let settings = format!("set local role {role}; set local signaling.restoring = {setting}");
        let mut transaction = world.open_transaction(&settings).await;
        let insert = sqlx::raw_sql(
            "insert into signaling.outbox (sender, destination, payload, status, finished_at)
             values ('alice', 'bob', 'hello', 'failed', now())",
        );
        let inserted = insert.execute(&mut *transaction).await;
        inserted
            .err()
            .and_then(sqlx::Error::into_database_error)
            .and_then(|error| error.constraint().map(str::to_owned))
    };
    let refusal = Some("message_is_not_inserted_as_pending".to_owned());
    assert_eq!(refused(&role, "on").await, refusal);
    assert_eq!(refused("postgres", "off").await, refusal);
    assert_eq!(refused("postgres", "on").await, None);
    world
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_sequence_of_attempts_is_behind_repeats_no_call() {
    let world = World::new().await;
    let old = world.insert(peer(json!({"due_at": "2999-01-01"}))).await;
    // A logical replica has the rows, and its sequences begin anew.
    world
        .execute(&format!(
            "insert into signaling.attempt (message_id, attempt, outcome)
             select {old}, 1, 'transient' from generate_series(1, 300);
             select setval('signaling.attempt_id_seq', 1, false)"
        ))
        .await;
    world.set_faults(&["500:count=3"]);
    let worker = world.worker().start();
    for _ in 0..6 {
        world.assert_sends().await;
    }
    assert_eq!(world.seen().calls, 6 + 3);
    assert_eq!(worker.logged("record_refused"), 0);
    let new = format!("message_id <> {old}");
    assert_eq!(world.count_attempts(&new).await, 3);
}
