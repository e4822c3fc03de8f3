//! No more connections than docs/setup.md promises, to either side.

use std::time::Duration;

use serde_json::json;
use simulator::{Behaviour, Simulator, SimulatorConfig};
use sqlx::{Connection, PgConnection};

use testkit::{
    API_KEY, API_SECRET, PATIENCE, Postgres, Worker, World, app_table, ask, basic, execute, peer,
    slow_api,
};

/// `WORKER_DATABASE_CONNECTIONS` in these tests: few, so that four apps have to share them.
const SHARED: i64 = 2;

/// Beside them: one records, one listens, two are for stats and monitoring.
const OTHERS: i64 = 4;

fn app(alias: &str, base_url: &str, max_in_flight: u32) -> String {
    let lines = format!("base_url = \"{base_url}\"\nmax_in_flight = {max_in_flight}");
    app_table(alias, &lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_many_apps_has_no_more_database_connections_than_promised() {
    let world = World::with(slow_api(300)).await;
    let base_url = world.simulator.base_url();
    let aliases = ["one", "two", "three", "four"];
    let config: String = aliases.map(|alias| app(alias, &base_url, 100)).concat();
    for alias in aliases {
        world.insert_many_of(alias, 300).await;
    }
    let mut worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &config)
        .env("WORKER_DATABASE_CONNECTIONS", &SHARED.to_string())
        .start();
    // The server may not have ended the two connections of the worker's test for a pooler yet.
    worker.until_logged("worker_started").await;
    world.until_accepted(1).await;
    let (mut most, mut looks, mut cut) = (0, 0, false);
    world
        .until("every row is final", PATIENCE, async || {
            let open: i64 = world
                .ask(
                    "select count(*) from pg_stat_activity
                     where datname = current_database() and application_name = 'signaling-worker'",
                )
                .await;
            assert!(open <= SHARED + OTHERS, "{open} connections");
            most = most.max(open);
            looks += 1;
            // Also while it connects anew.
            if looks == 10 {
                world
                    .execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity
                         where datname = current_database() and application_name = 'signaling-worker'",
                    )
                    .await;
                cut = true;
            }
            world.count("status = 'pending'").await == 0
        })
        .await;
    assert!(cut, "it was over too soon for this test");
    // Stats and queue counts seldom need a connection each at once.
    assert!(
        most >= SHARED + OTHERS - 1,
        "at most {most} in {looks} looks: the bound was not reached"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_has_no_more_connections_to_the_api_than_messages_in_flight() {
    let slow = |latency_ms| SimulatorConfig {
        behaviour: Behaviour {
            latency: Duration::from_millis(latency_ms),
            credentials: basic(API_KEY, API_SECRET),
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    };
    let world = World::with(slow(150)).await;
    let other_api = Simulator::start(slow(50)).await.expect("a simulator");
    let few = app("few", &world.simulator.base_url(), 8);
    let config = few + &app("more", &other_api.base_url(), 25);
    world.insert_many_of("few", 150).await;
    world.insert_many_of("more", 600).await;
    let mut worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &config)
        .start();
    world.until_all_final().await;
    for (api, bound) in [(&world.simulator, 8), (&other_api, 25)] {
        let summary = api.ledger().summary();
        assert!(
            summary.most_connections <= bound,
            "{} connections, {bound} in flight",
            summary.most_connections
        );
        assert!(
            summary.most_connections > bound / 2,
            "the load was too light: {}",
            summary.most_connections
        );
        // The worker uses these connections again.
        assert!(summary.calls > 10 * summary.most_connections);
    }
    worker.stop().await;
}

/// A role that the server lets have so many connections at once; its URL of a database.
async fn bounded_role(name: &str, url: &str, connections: u32, rights: &str) -> String {
    let mut admin = PgConnection::connect(url).await.expect("connected");
    let statements = format!(
        "create role {name} login password 'test' connection limit {connections}; {}",
        rights.replace("ROLE", name)
    );
    execute(&mut admin, &statements).await;
    admin.close().await.expect("closed");
    let (_, server) = url.split_once('@').expect("a host");
    format!("postgres://{name}:test@{server}")
}

#[tokio::test]
async fn a_command_has_no_more_database_connections_than_promised() {
    let world = World::new().await;
    let id = world.insert(peer(json!({}))).await;
    let id = id.to_string();
    let mut worker = world.worker().start();
    world.until_all_final().await;
    worker.stop().await;
    let url = bounded_role("bounded_operator", &world.url, 3, "").await;
    let granted = world.command(&["grant", "operator", "bounded_operator"]);
    assert_eq!(granted.finish().await.code, Some(0));
    for arguments in [
        &["status"][..],
        &["pause", "default"],
        &["resume", "default"],
        &["limit", "default", "10"],
        &["retry", "--dry-run"],
        &["cancel", &id],
    ] {
        let finished = Worker::on(&url, arguments).finish().await;
        // The exit code shows that a final message can't be cancelled.
        let expected = i32::from(arguments[0] == "cancel");
        assert_eq!(finished.code, Some(expected), "{arguments:?}: {finished:?}");
        assert!(
            !finished.stderr.contains("too many connections"),
            "{arguments:?}: {finished:?}"
        );
    }
}

#[tokio::test]
async fn migrate_has_no_more_database_connections_than_promised() {
    let url = Postgres::shared().await.empty_database().await;
    let mut admin = PgConnection::connect(&url).await.expect("connected");
    let database: String = ask(&mut admin, "select current_database()::text").await;
    let rights = format!("grant create on database {database} to ROLE");
    let url = bounded_role("bounded_migrator", &url, 4, &rights).await;
    for _first_and_again in 0..2 {
        Worker::on(&url, &["migrate"]).succeeds().await;
    }
}
