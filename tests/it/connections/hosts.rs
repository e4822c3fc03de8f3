//! A database with several hosts, and parameters in the variables of libpq.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;

use testkit::{
    API_KEY, API_SECRET, APP_ID, PATIENCE, Postgres, Worker, World, peer, slow_api, until,
};

/// The parts of a URL of the tests: user, password, host and port, database.
fn parts(url: &str) -> [String; 4] {
    let rest = url.strip_prefix("postgres://").expect("a URL");
    let (login, rest) = rest.split_once('@').expect("a login");
    let (user, password) = login.split_once(':').expect("a password");
    let (address, rest) = rest.split_once('/').expect("a database");
    let database = rest.split('?').next().expect("a part");
    [user, password, address, database].map(str::to_owned)
}

/// Gives both servers the same login, as a primary and its standby have it. Returns a URL of it.
async fn same_login(worlds: [&World; 2]) -> String {
    for world in worlds {
        world
            .execute("create role of_both superuser login password 'the-same'")
            .await;
    }
    let [_, _, address, database] = parts(&worlds[0].url);
    format!("postgres://of_both:the-same@{address}/{database}")
}

/// The URL with another list of hosts, and with more parameters.
fn on_hosts(url: &str, hosts: &str, parameters: &str) -> String {
    let [user, password, _, database] = parts(url);
    format!("postgres://{user}:{password}@{hosts}/{database}?sslmode=disable{parameters}")
}

fn status(url: &str) -> Worker {
    Worker::new(&["status"]).env("DATABASE_URL", url)
}

#[tokio::test]
async fn a_host_that_refuses_or_says_nothing_is_passed_over() {
    let world = World::new().await;
    let [_, _, address, _] = parts(&world.url);
    // The system takes connections for it, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("bound");
    for hosts in [
        format!("127.0.0.1:1,{address}"),
        format!("{silent},{address}"),
        format!("no-such-host.invalid,{address},127.0.0.1:1"),
    ] {
        let url = on_hosts(&world.url, &hosts, "&connect_timeout=1");
        let finished = status(&url).finish().await;
        assert_eq!(finished.code, Some(0), "{hosts}: {finished:?}");
    }
    let url = on_hosts(
        &world.url,
        &format!("127.0.0.1:1,{address}"),
        "&keepalives=1",
    );
    let check = Worker::new(&["check"]).env("DATABASE_URL", &url);
    let text = check.finish().await.stdout;
    assert!(text.contains("warn  hosts"), "{text}");
    assert!(text.contains("warn  parameters"), "{text}");
    let url = on_hosts(&world.url, "127.0.0.1:1,no-such-host.invalid", "");
    let finished = status(&url).finish().await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for host in ["127.0.0.1:1: ", "no-such-host.invalid:5432: "] {
        assert!(finished.stderr.contains(host), "{finished:?}");
    }
}

#[tokio::test]
async fn a_server_is_chosen_by_its_session_attributes() {
    let (one, two) = (Postgres::start().await, Postgres::start().await);
    let read_only = World::on(&one, slow_api(0)).await;
    let writable = World::on(&two, slow_api(0)).await;
    let login = same_login([&read_only, &writable]).await;
    let [_, _, first, database] = parts(&read_only.url);
    let [_, _, second, other_database] = parts(&writable.url);
    assert_eq!(database, other_database);
    read_only
        .execute("alter system set default_transaction_read_only = on")
        .await;
    read_only.execute("select pg_reload_conf()").await;
    let check = async |parameters: &str| {
        let url = on_hosts(&login, &format!("{first},{second}"), parameters);
        let check = Worker::new(&["check"]).env("DATABASE_URL", &url);
        check.finish().await.stdout
    };
    until("the first server takes no writes", PATIENCE, async || {
        check("&target_session_attrs=any")
            .await
            .contains("read-only")
    })
    .await;
    for (parameters, address) in [
        ("", &second),
        ("&target_session_attrs=read-write", &second),
        ("&target_session_attrs=read-only", &first),
        ("&target_session_attrs=primary", &first),
        ("&target_session_attrs=prefer-standby", &first),
    ] {
        let text = check(parameters).await;
        assert!(
            text.contains(&format!("at {address}, ")),
            "{parameters}: {text}"
        );
    }
    let text = check("").await;
    let hosts = format!("{first} takes no writes; {second} takes writes");
    assert!(text.contains(&hosts), "{text}");
    let text = check("&target_session_attrs=standby").await;
    assert!(
        text.contains("FAIL") && text.contains("it is no standby"),
        "{text}"
    );
    for (world, postgres) in [(read_only, one), (writable, two)] {
        world.pool.close().await;
        postgres.cluster.stop().await.expect("stopped");
    }
}

/// Two servers with a database each, as a primary and its standby have them before and after a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_follows_the_server_that_takes_writes_and_back() {
    let (one, mut two) = (Postgres::start().await, Postgres::start().await);
    let first = World::on(&one, slow_api(0)).await;
    let second = World::on(&two, slow_api(0)).await;
    let login = same_login([&first, &second]).await;
    let [_, _, first_address, database] = parts(&first.url);
    let [_, _, second_address, other_database] = parts(&second.url);
    assert_eq!(database, other_database);
    let hosts = format!("{first_address},{second_address}");
    let url = on_hosts(&login, &hosts, "&connect_timeout=2");
    let worker = first.worker().env("DATABASE_URL", &url);
    let mut worker = worker.env("WORKER_REQUEST_TIMEOUT", "1s").start();
    let delivered_by = async |world: &World| {
        let id = world.insert(peer(json!({}))).await;
        assert_eq!(world.until_final(id).await.status, "message_sent");
    };
    delivered_by(&first).await;

    // A standby has the lane, too.
    let mut other = second.worker().start();
    other.until_logged("worker_started").await;
    other.stop().await;
    // The first becomes read-only, and keeps the worker's sessions.
    first
        .execute("alter system set default_transaction_read_only = on")
        .await;
    first.execute("select pg_reload_conf()").await;
    delivered_by(&second).await;

    // The second dies, and the first takes writes again.
    two.cluster.crash().await.expect("down");
    first
        .execute("alter system reset default_transaction_read_only")
        .await;
    first.execute("select pg_reload_conf()").await;
    first
        .until(
            "the first takes writes",
            Duration::from_secs(10),
            async || {
                !first
                    .ask::<bool>("select current_setting('default_transaction_read_only')::boolean")
                    .await
            },
        )
        .await;
    delivered_by(&first).await;
    worker.stop().await;
    for (world, postgres) in [(first, one), (second, two)] {
        world.pool.close().await;
        postgres.cluster.stop().await.expect("stopped");
    }
}

#[tokio::test]
async fn a_database_is_named_by_the_variables_of_libpq_alone() {
    let world = World::new().await;
    let [user, password, address, database] = parts(&world.url);
    let (host, port) = address.split_once(':').expect("a port");
    let command = |arguments: &[&str]| {
        Worker::new(arguments)
            .env("AGORA_APP_ID", APP_ID)
            .env("AGORA_API_KEY", API_KEY)
            .env("AGORA_API_SECRET", API_SECRET)
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
    let finished = command(&["status"]).finish().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let id = world.insert(peer(json!({}))).await;
    let mut worker = command(&["run"]).start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    let sessions: i64 = world
        .ask("select count(*) from pg_stat_activity where application_name = 'named-by-a-variable'")
        .await;
    assert!(sessions > 0);
    worker.stop().await;
    for (variable, value, told) in [
        ("PGSERVICE", "elsewhere", "PGSERVICE is not supported"),
        ("PGSSLMODE", "secure", "PGSSLMODE is not valid"),
        ("PGTARGETSESSIONATTRS", "standby", "it is no standby"),
    ] {
        let finished = command(&["status"]).env(variable, value).finish().await;
        assert!(finished.code.is_some_and(|code| code > 0), "{finished:?}");
        assert!(finished.stderr.contains(told), "{finished:?}");
        assert!(!finished.stderr.contains("elsewhere"), "{finished:?}");
    }
    let nothing = command(&["status"]);
    let nothing = ["PGHOST", "PGDATABASE"]
        .into_iter()
        .fold(nothing, Worker::without_env);
    let finished = nothing.finish().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished.stderr.contains("no database is given"),
        "{finished:?}"
    );
}

#[tokio::test]
async fn a_parameter_that_the_worker_can_not_honour_is_refused_or_warned_of() {
    let world = World::new().await;
    let with = |parameters: &str| status(&format!("{}&{parameters}", world.url));
    let refused = with("channel_binding=require").finish().await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("channel_binding of DATABASE_URL is not supported: "),
        "{refused:?}"
    );
    let warned = with("keepalives_idle=5").finish().await;
    assert_eq!(warned.code, Some(0), "{warned:?}");
    assert!(
        warned.stderr.contains("has no effect: keepalives_idle"),
        "{warned:?}"
    );
}
