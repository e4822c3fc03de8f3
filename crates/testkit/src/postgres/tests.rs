use std::{
    env,
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::{Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// Makes a copy of this program start a cluster in the named directory, and wait to be killed.
const VICTIM: &str = "WORKER_TEST_VICTIM_DIRECTORY";

/// A directory for the clusters of one test, so that the test finds leftovers. PostgreSQL's user can enter it.
fn nursery() -> TempDir {
    let directory = TempDir::new_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    directory
}

async fn cluster_in(parent: &Path) -> ThrowawayPostgres {
    let installation = Installation::find(None).await.unwrap();
    ThrowawayPostgres::start_in(parent, &installation, &Settings::default(), free_ports())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_port_that_another_process_takes_is_replaced() {
    let (parent, settings) = (nursery(), Settings::default());
    let installation = Installation::find(None).await.unwrap();
    let (taken, free) = (free_ports().next().unwrap(), free_ports().next().unwrap());
    let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
    let ports = [taken, free].into_iter();
    let cluster = ThrowawayPostgres::start_in(parent.path(), &installation, &settings, ports);
    let cluster = cluster.await.unwrap();
    assert_eq!(cluster.port, free);
    cluster.stop().await.unwrap();
    wait_until("the first directory is gone", || is_empty(parent.path())).await;
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Returns false if there is no such process.
fn signal(name: &str, pid: u32) -> bool {
    let kill = format!("kill -s {name} {pid}");
    Command::new("sh")
        .args(["-c", &kill])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

fn is_alive(pid: u32) -> bool {
    signal("0", pid)
}

async fn value<T>(url: &str, query: &'static str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    let value = sqlx::query_scalar(query).fetch_one(&mut connection);
    value.await.unwrap()
}

#[tokio::test]
async fn given_settings_and_files_reach_the_server() {
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256 # given\n";
    let cluster = ThrowawayPostgres::start_with(&Settings {
        server_settings: vec!["work_mem=5MB".into()],
        data_files: vec![("pg_hba.conf", hba.into())],
        ..Settings::default()
    })
    .await
    .unwrap();
    let work_mem: String = value(&cluster.admin_url(), "SHOW work_mem").await;
    assert_eq!(work_mem, "5MB");
    let file = cluster.directory.join("data/pg_hba.conf");
    assert_eq!(fs::read_to_string(&file).unwrap(), hba);
    let (file, data) = (
        file.metadata().unwrap(),
        cluster.directory.metadata().unwrap(),
    );
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(file.uid(), data.uid());
    cluster.stop().await.unwrap();
}

const SETTINGS: &str =
    "SELECT concat_ws(' ', current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('max_connections'))";

#[tokio::test]
async fn a_new_database_answers() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("plain_1").await.unwrap();
    assert_eq!(url, cluster.url("plain_1"));
    let found: String = value(&url, "SELECT current_database()::text").await;
    assert_eq!(found, "plain_1");
    assert!(is_alive(cluster.pid.unwrap()));
    assert!(cluster.version.contains("PostgreSQL"));
    let settings: String = value(&cluster.admin_url(), SETTINGS).await;
    assert_eq!(settings, "off off on 400");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_durable_cluster_waits_for_the_disk() {
    let settings = Settings {
        is_durable: true,
        server_settings: vec!["max_connections=37".into()],
        ..Settings::default()
    };
    let cluster = ThrowawayPostgres::start_with(&settings).await.unwrap();
    let settings: String = value(&cluster.admin_url(), SETTINGS).await;
    assert_eq!(settings, "on on on 37");
}

#[tokio::test]
async fn a_connection_over_tcp_needs_the_password() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.admin_url().replace(&cluster.password, "wrong");
    let refused = PgConnection::connect(&url).await.unwrap_err();
    let error = refused.into_database_error().unwrap();
    assert_eq!(error.code().unwrap(), "28P01", "invalid_password");
}

#[tokio::test]
async fn nothing_is_left_when_stop_returns() {
    let parent = nursery();
    let cluster = cluster_in(parent.path()).await;
    let pid = cluster.pid.unwrap();
    let connection = PgConnection::connect(&cluster.admin_url()).await.unwrap();
    cluster.stop().await.unwrap();
    assert!(is_empty(parent.path()));
    assert!(!is_alive(pid));
    drop(connection);
}

#[tokio::test]
async fn nothing_is_left_after_drop_of_a_running_or_crashed_cluster() {
    for crashes in [false, true] {
        let parent = nursery();
        let mut cluster = cluster_in(parent.path()).await;
        let pid = cluster.pid.unwrap();
        if crashes {
            cluster.crash().await.unwrap();
        }
        drop(cluster);
        wait_until("the directory is gone", || is_empty(parent.path())).await;
        assert!(!is_alive(pid));
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_start_that_is_dropped_halfway() {
    let parent = nursery();
    let starting = cluster_in(parent.path());
    tokio::select! {
        _ = starting => panic!("started before it was given up"),
        () = wait_until("there is a directory", || !is_empty(parent.path())) => {}
    }
    wait_until("the directory is gone", || is_empty(parent.path())).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_ends_by_itself() {
    let parent = nursery();
    let mut cluster = cluster_in(parent.path()).await;
    assert!(signal("KILL", cluster.pid.unwrap()));
    wait_until("the directory is gone", || is_empty(parent.path())).await;
    let error = cluster.restart().await.unwrap_err().to_string();
    assert!(error.starts_with("PostgreSQL ended while"), "{error}");
    cluster.stop().await.unwrap();
}

/// Not a test: the process that the next test kills.
#[tokio::test]
async fn victim() {
    let Some(parent) = env::var_os(VICTIM) else {
        return;
    };
    let cluster = cluster_in(Path::new(&parent)).await;
    println!("\npid {}", cluster.pid.unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_after_the_parent_was_killed() {
    let parent = nursery();
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "postgres::tests::victim", "--nocapture"])
        .env(VICTIM, parent.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid: u32 = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok())
        .expect("the victim has a cluster");
    assert!(is_alive(pid));

    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("the directory is gone", || is_empty(parent.path())).await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_committed() {
    let mut cluster = ThrowawayPostgres::start().await.unwrap();
    let port = cluster.port;
    let mut connection = PgConnection::connect(&cluster.admin_url()).await.unwrap();
    let mut statements = vec!["CREATE TABLE kept (n int)"];
    statements.extend(["INSERT INTO kept VALUES (1)"; 100]);
    for statement in statements {
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap();
    }

    cluster.crash().await.unwrap();
    assert_eq!(cluster.pid, None);
    assert!(connection.ping().await.is_err());
    assert!(PgConnection::connect(&cluster.admin_url()).await.is_err());
    cluster.crash().await.unwrap();

    for _running_or_not in 0..2 {
        cluster.restart().await.unwrap();
        assert_eq!(cluster.port, port);
        let rows: i64 = value(&cluster.admin_url(), "SELECT count(*) FROM kept").await;
        assert_eq!(rows, 100);
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_the_servers_message() {
    let parent = nursery();
    let installation = Installation::find(None).await.unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let settings = Settings {
        server_settings: vec![format!("port={port}")],
        ..Settings::default()
    };
    let error = ThrowawayPostgres::start_in(parent.path(), &installation, &settings, free_ports())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("Address already in use"), "{error}");
    wait_until("the directory is gone", || is_empty(parent.path())).await;
}

#[tokio::test]
async fn without_programs_the_error_says_where_to_look_and_what_to_install() {
    let empty = nursery();
    let directory = empty.path().to_owned();
    let error = Installation::find(Some(directory.clone()))
        .await
        .unwrap_err()
        .to_string();
    let directory = directory.to_str().unwrap();
    for phrase in [directory, "apt-get install", "WORKER_PG_BINDIR"] {
        assert!(error.contains(phrase), "{phrase:?} is missing: {error}");
    }
}

#[tokio::test]
async fn programs_that_do_not_run_are_named_in_the_error() {
    let broken = nursery();
    for program in ["initdb", "postgres"] {
        fs::write(broken.path().join(program), "").unwrap();
    }
    let found = Installation::find(Some(broken.path().to_owned())).await;
    let error = found.unwrap_err().to_string();
    let program = broken.path().join("postgres").display().to_string();
    for phrase in [&*program, "Permission denied"] {
        assert!(error.contains(phrase), "{phrase:?} is missing: {error}");
    }
}

#[tokio::test]
async fn programs_work_through_links_and_from_where_they_are() {
    let found = Installation::find(None).await.unwrap();
    let server = found.bindir.join("postgres").canonicalize().unwrap();
    let real = server.parent().unwrap().to_owned();
    let links = nursery();
    for program in ["initdb", "postgres"] {
        symlink(real.join(program), links.path().join(program)).unwrap();
    }
    for bindir in [real, links.path().to_owned()] {
        let installation = Installation::find(Some(bindir)).await.unwrap();
        let parent = nursery();
        let settings = Settings::default();
        let cluster =
            ThrowawayPostgres::start_in(parent.path(), &installation, &settings, free_ports());
        cluster.await.unwrap().stop().await.unwrap();
    }
}

#[tokio::test]
async fn several_clusters_can_start_at_once() {
    let start = || tokio::spawn(async { ThrowawayPostgres::start().await.unwrap() });
    let (one, two, three) = tokio::join!(start(), start(), start());
    let ports = [one, two, three].map(|started| started.unwrap().port);
    assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
}

#[test]
fn a_cluster_outlives_the_runtime_of_its_start() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let parent = nursery();
    let cluster = runtime().block_on(cluster_in(parent.path()));
    runtime()
        .block_on(cluster.create_database("later"))
        .unwrap();
    drop(cluster);
    runtime().block_on(wait_until("the directory is gone", || {
        is_empty(parent.path())
    }));
}
