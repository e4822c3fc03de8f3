//! No more connections than docs/setup.md promises, to either side.

use serde_json::json;
use simulator::Simulator;

use crate::schema::roles::Role;
use harness::{API_KEY, API_SECRET, PATIENCE, Worker, World, app_table, basic, peer, slow_api};

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
    let (mut most, mut looks) = (0, 0);
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
                world.terminate_workers().await;
            }
            world.count("status = 'pending'").await == 0
        })
        .await;
    assert!(looks >= 10, "it was over too soon for this test");
    // Stats and queue counts seldom need a connection each at once.
    assert!(
        most >= SHARED + OTHERS - 1,
        "at most {most} in {looks} looks: the bound was not reached"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_has_no_more_connections_to_the_api_than_messages_in_flight() {
    let world = World::with(slow_api(150)).await;
    let mut other_api = slow_api(50);
    other_api.behaviour.credentials = basic(API_KEY, API_SECRET);
    let other_api = Simulator::start(other_api).await.expect("a simulator");
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
        let most = summary.most_connections;
        assert!(most <= bound, "{most} connections, {bound} in flight");
        assert!(most > bound / 2, "the load was too light: {most}");
        assert!(summary.calls > 10 * most, "connections are used again");
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_command_has_no_more_database_connections_than_promised() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = world.insert(peer(json!({}))).await.to_string();
    let operator = Role::granted(&world, "operator").await;
    let limit = format!("alter role {} connection limit 3", operator.name);
    world.execute(&limit).await;
    for arguments in [
        &["status"][..],
        &["pause", "default"],
        &["resume", "default"],
        &["limit", "default", "10"],
        &["retry", "--dry-run"],
        &["cancel", &id],
    ] {
        operator.command(arguments).succeeds().await;
    }
}

#[tokio::test]
async fn migrate_has_no_more_database_connections_than_promised() {
    let world = World::new().await;
    let Role { name, url } = Role::new(&world, "migrator").await;
    let database: String = world.ask("select current_database()::text").await;
    world
        .execute(&format!(
            "drop schema signaling cascade; grant create on database {database} to {name};
             alter role {name} connection limit 4"
        ))
        .await;
    for _first_and_again in 0..2 {
        Worker::on(&url, &["migrate"]).succeeds().await;
    }
}
