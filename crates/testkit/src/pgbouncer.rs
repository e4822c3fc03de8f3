//! A real PgBouncer in transaction mode, between the tests and a cluster.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};

use super::machine::Postgres;
use super::write;
use super::{PATIENCE, comes_true};

/// Keeps PgBouncer until the input ends, which it does also when this process is killed.
const KEEPER: &str = r#"exec 3<&0 </dev/null
"$1" --quiet "$2" 3<&- &
read -r _ <&3
kill -s KILL $!
wait $!"#;

/// Connections to the database that all clients of one pool share: fewer than two workers would have.
pub(crate) const POOL_SIZE: u32 = 4;

/// The first version that can keep prepared statements, by `max_prepared_statements`.
const KEEPS_STATEMENTS: (u32, u32) = (1, 21);

/// A PgBouncer, running or killed.
pub struct PgBouncer {
    directory: TempDir,
    owner: (u32, u32),
    port: u16,
    running: Option<(Child, ChildStdin)>,
}

impl PgBouncer {
    /// What the tests run with: lines of the configuration, as far as the installed version knows them. Without any,
    /// everything is as the version has it.
    pub async fn variants() -> Vec<&'static str> {
        if version().await >= KEEPS_STATEMENTS {
            vec![
                "",
                "max_prepared_statements = 0",
                "max_prepared_statements = 200",
            ]
        } else {
            vec![""]
        }
    }

    /// Starts one in front of a cluster, with more lines in its configuration.
    pub async fn start(postgres: &Postgres, settings: &str) -> Self {
        let cluster = &postgres.cluster;
        // It refuses to run as root, as the server does.
        let owner = fs::metadata(cluster.directory()).expect("the cluster's directory");
        let owner = (owner.uid(), owner.gid());
        let parent = cluster.directory().parent().expect("it is in another one");
        let directory = TempDir::new_in(parent).expect("a directory");
        let path = directory.path();
        let port = free_port();
        let users = write(
            path,
            "users.txt",
            &format!("\"postgres\" \"{}\"\n", password(&cluster.admin_url())),
        );
        let configuration = write(
            path,
            "pgbouncer.ini",
            &format!(
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
                database_port = cluster.port(),
                users = users.display(),
                log = path.join("log").display(),
            ),
        );
        for path in [path, &users, &configuration] {
            chown(path, Some(owner.0), Some(owner.1)).expect("given to PgBouncer's user");
        }
        let mut pgbouncer = Self {
            directory,
            owner,
            port,
            running: None,
        };
        pgbouncer.run();
        pgbouncer.until_it_answers(&cluster.admin_url()).await;
        pgbouncer
    }

    /// The URL of a database, by way of PgBouncer.
    pub fn url(&self, url: &str) -> String {
        let (before, rest) = url.split_once("@127.0.0.1:").expect("a host");
        let (_, database) = rest.split_once('/').expect("a database");
        format!("{before}@127.0.0.1:{}/{database}", self.port)
    }

    /// Ends it as a crash would, and returns when it is gone.
    pub async fn kill(&mut self) {
        let (mut keeper, input) = self.running.take().expect("it runs");
        drop(input);
        tokio::time::timeout(PATIENCE, keeper.wait())
            .await
            .expect("PgBouncer ends")
            .expect("its end");
    }

    /// Starts it again after it was killed, on the same port.
    pub async fn restart(&mut self, postgres: &Postgres) {
        assert!(self.running.is_none(), "it still runs");
        self.run();
        self.until_it_answers(&postgres.cluster.admin_url()).await;
    }

    fn run(&mut self) {
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(program())
            .arg(self.directory.path().join("pgbouncer.ini"))
            .current_dir(self.directory.path())
            .uid(self.owner.0)
            .gid(self.owner.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let input = keeper.stdin.take().expect("piped");
        self.running = Some((keeper, input));
    }

    async fn until_it_answers(&self, admin_url: &str) {
        let url = self.url(admin_url);
        let answers = comes_true(PATIENCE, async || match pooled_client(&url).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        })
        .await;
        if !answers {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(10).collect();
            panic!("PgBouncer does not answer; its log, the newest first: {last:#?}");
        }
    }
}

/// Connects by way of PgBouncer, which refuses a parameter that sqlx usually sends.
pub async fn pooled_client(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    options.extra_float_digits(None).connect().await
}

fn password(url: &str) -> &str {
    let (_, rest) = url.split_once("//postgres:").expect("a password");
    rest.split_once('@').expect("a host").0
}

/// Where Debian puts it, which is not on everybody's `PATH`.
fn program() -> PathBuf {
    let packaged = Path::new("/usr/sbin/pgbouncer");
    if packaged.exists() {
        packaged.to_owned()
    } else {
        "pgbouncer".into()
    }
}

async fn version() -> (u32, u32) {
    let output = Command::new(program())
        .arg("--version")
        .output()
        .await
        .expect("PgBouncer is installed: `.ci/ensure-prerequisites pgbouncer` does that");
    let text = String::from_utf8(output.stdout).expect("text");
    let number = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("PgBouncer "))
        .unwrap_or_else(|| panic!("a version: {text}"));
    let mut parts = number
        .split('.')
        .map(|part| part.parse().expect("a number"));
    let mut part = || parts.next().expect("major and minor");
    (part(), part())
}

/// Below the ports that systems give to outgoing connections, so that nobody takes it while PgBouncer is away.
fn free_port() -> u16 {
    (0..20)
        .map(|_| rand::random_range(20_000..30_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}
