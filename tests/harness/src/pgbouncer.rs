//! A real PgBouncer in transaction mode, between the tests and a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::process::{Child, Command};

use super::databases::Postgres;
use super::{PATIENCE, World, comes_true};
use testkit::postgres::free_ports;

/// All clients of a pool share these connections: fewer than two workers would have.
const POOL_SIZE: u32 = 4;

/// A PgBouncer, running or killed. Its files are in the cluster's directory.
pub struct PgBouncer {
    configuration: PathBuf,
    log: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl PgBouncer {
    /// Lines of configuration to test with. PgBouncer keeps prepared statements since version 1.21.
    pub async fn variants() -> Vec<&'static str> {
        let output = Command::new(program()).arg("--version").output().await;
        let output =
            output.expect("PgBouncer is missing: run `.ci/ensure-prerequisites pgbouncer`");
        let version = String::from_utf8_lossy(&output.stdout);
        if (0..21).any(|minor| version.contains(&format!("PgBouncer 1.{minor}."))) {
            return vec![""];
        }
        vec![
            "",
            "max_prepared_statements = 0",
            "max_prepared_statements = 200",
        ]
    }

    /// Starts a PgBouncer in front of a cluster, with further lines of configuration.
    pub async fn start(postgres: &Postgres, settings: &str) -> Self {
        let cluster = &postgres.cluster;
        let port = free_ports().next().expect("a free port");
        let path = |name: &str| cluster.directory.join(format!("pgbouncer-{port}.{name}"));
        let write = |name: &str, text: &str| {
            let written = cluster.installation.write_for_server(&path(name), text);
            written.expect("written");
            path(name)
        };
        let user = format!("\"postgres\" \"{}\"\n", cluster.password);
        let (users, log) = (write("users", &user), path("log"));
        let configuration = format!(
            "[databases]
* = host=127.0.0.1 port={database_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
logfile = {log}
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = 200
{settings}
",
            database_port = cluster.port,
            users = users.display(),
            log = log.display(),
        );
        let mut pgbouncer = Self {
            configuration: write("ini", &configuration),
            log,
            port,
            running: None,
        };
        pgbouncer.restart(postgres).await;
        pgbouncer
    }

    /// The URL of the same database through PgBouncer.
    pub fn url(&self, url: &str) -> String {
        let (before, rest) = url.split_once("@127.0.0.1:").expect("a host");
        let (_, database) = rest.split_once('/').expect("a database");
        format!("{before}@127.0.0.1:{}/{database}", self.port)
    }

    /// Kills PgBouncer as a crash would, and returns after its end.
    pub async fn kill(&mut self) {
        let mut running = self.running.take().expect("PgBouncer runs");
        running.kill().await.expect("killed");
    }

    /// Starts a killed PgBouncer on the same port.
    pub async fn restart(&mut self, postgres: &Postgres) {
        assert!(self.running.is_none(), "PgBouncer still runs");
        // PgBouncer refuses to run as root, as the server does. It ends with this process, even after SIGKILL.
        let installation = &postgres.cluster.installation;
        let running = installation
            .command("setpriv")
            .args(["--pdeathsig", "KILL", program(), "--quiet"])
            .arg(&self.configuration)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("setpriv of util-linux");
        self.running = Some(running);

        let url = self.url(&postgres.cluster.admin_url());
        let answers = comes_true(PATIENCE, async || match pooled_client(&url).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        });
        if !answers.await {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(10).collect();
            panic!("PgBouncer does not answer; its log, the newest first: {last:#?}");
        }
    }
}

impl World {
    /// Starts a PgBouncer on the shared cluster. From now on, the workers and commands of this world connect through it.
    pub async fn connect_through_pooler(&mut self, settings: &str) -> PgBouncer {
        let pooler = PgBouncer::start(Postgres::shared().await, settings).await;
        self.url = pooler.url(&self.url);
        pooler
    }
}

/// Connects through PgBouncer, which refuses a parameter that sqlx usually sends.
pub async fn pooled_client(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    options.extra_float_digits(None).connect().await
}

/// Debian's directory is not on every user's `PATH`.
fn program() -> &'static str {
    let packaged = "/usr/sbin/pgbouncer";
    if Path::new(packaged).exists() {
        packaged
    } else {
        "pgbouncer"
    }
}
