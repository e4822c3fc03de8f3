//! A database with several hosts, and parameters in the variables of libpq.

use tokio::net::TcpListener;

use harness::{Postgres, Worker, World, assert_contains, slow_api};

/// The parts of a URL of the tests: user, password, host and port, database.
fn parts(url: &str) -> [String; 4] {
    let rest = url.strip_prefix("postgres://").expect("a URL");
    let (login, rest) = rest.split_once('@').expect("a login");
    let (user, password) = login.split_once(':').expect("a password");
    let (address, rest) = rest.split_once('/').expect("a database");
    let database = rest.split('?').next().expect("a part");
    [user, password, address, database].map(str::to_owned)
}

/// The URL with another list of hosts, and with more parameters.
fn on_hosts(url: &str, hosts: &str, parameters: &str) -> String {
    let [user, password, _, database] = parts(url);
    format!("postgres://{user}:{password}@{hosts}/{database}?sslmode=disable{parameters}")
}

fn status(url: &str) -> Worker {
    Worker::on(url, &["status"])
}

/// The output of a check without an app, which fails.
async fn check(url: &str) -> String {
    Worker::on(url, &["check"]).fails(1, &[]).await.stdout
}

#[tokio::test]
async fn a_host_that_refuses_or_says_nothing_is_passed_over() {
    let world = World::new().await;
    let [_, _, address, _] = parts(&world.url);
    // The system accepts connections of this listener, and no server answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("bound");
    for hosts in [
        format!("127.0.0.1:1,{address}"),
        format!("{silent},{address}"),
        format!("no-such-host.invalid,{address},127.0.0.1:1"),
    ] {
        let url = on_hosts(&world.url, &hosts, "&connect_timeout=1");
        status(&url).succeeds().await;
    }
    let url = on_hosts(&world.url, &format!("127.0.0.1:1,{address}"), "");
    assert_contains(&check(&url).await, &["warn  hosts"]);
    let url = on_hosts(&world.url, "127.0.0.1:1,no-such-host.invalid", "");
    status(&url)
        .fails(1, &["127.0.0.1:1: ", "no-such-host.invalid:5432: "])
        .await;
}

/// Two servers with a database each, as a primary and its standby have them before and after a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_follows_the_server_that_takes_writes_and_back() {
    let (one, mut two) = (Postgres::start().await, Postgres::start().await);
    let first = World::on(&one, slow_api(0)).await;
    let second = World::on(&two, slow_api(0)).await;
    // A primary and its standby have the same login.
    for world in [&first, &second] {
        world
            .execute("create role of_both superuser login password 'the-same'")
            .await;
    }
    let [_, _, first_address, database] = parts(&first.url);
    let [_, _, second_address, other_database] = parts(&second.url);
    assert_eq!(database, other_database);
    let url = format!(
        "postgres://of_both:the-same@{first_address},{second_address}/{database}?sslmode=disable&connect_timeout=2"
    );
    let worker = first.worker().env("DATABASE_URL", &url);
    let mut worker = worker.env("WORKER_REQUEST_TIMEOUT", "1s").start();
    first.assert_sends().await;

    // A standby has the lane, too.
    let mut other = second.worker().start();
    other.until_logged("worker_started").await;
    other.stop().await;
    // The first becomes read-only, and keeps the worker's sessions.
    first
        .execute("alter system set default_transaction_read_only = on")
        .await;
    first.execute("select pg_reload_conf()").await;
    second.assert_sends().await;
    let states = format!("{first_address} takes no writes; {second_address} takes writes");
    let serves = format!("at {second_address}, ");
    assert_contains(&check(&url).await, &[&states, &serves]);

    // The second dies, and the first takes writes again.
    two.cluster.crash().await.expect("down");
    first
        .execute("alter system reset default_transaction_read_only")
        .await;
    first.execute("select pg_reload_conf()").await;
    first
        .until_true("select not current_setting('default_transaction_read_only')::boolean")
        .await;
    first.assert_sends().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_database_is_named_by_the_variables_of_libpq_alone() {
    let world = World::new().await;
    let [user, password, address, database] = parts(&world.url);
    let (host, port) = address.split_once(':').expect("a port");
    let command = |arguments: &[&str]| {
        Worker::new(arguments)
            .with_app()
            .env("AGORA_BASE_URL", &world.simulator.base_url())
            .env("PGHOST", host)
            .env("PGPORT", port)
            .env("PGUSER", &user)
            .env("PGPASSWORD", &password)
            .env("PGDATABASE", &database)
            .env("PGSSLMODE", "disable")
            .env("PGAPPNAME", "named-by-a-variable")
            .env("PGOPTIONS", "-c work_mem=7MB")
    };
    command(&["status"]).succeeds().await;
    let mut worker = command(&["run"]).start();
    world.assert_sends().await;
    let sessions: i64 = world
        .ask("select count(*) from pg_stat_activity where application_name = 'named-by-a-variable'")
        .await;
    assert!(sessions > 0);
    worker.stop().await;
    let status = command(&["status"]).without_env("PGHOST");
    let without_database = status.without_env("PGDATABASE");
    without_database.fails(2, &["no database is given"]).await;
}
