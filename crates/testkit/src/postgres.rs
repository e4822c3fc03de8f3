//! A throwaway PostgreSQL cluster: made with the programs of this machine, on its own port, and removed afterwards even if
//! this process is killed.

mod installation;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;
use uuid::Uuid;

pub use self::installation::Installation;

/// Below the ports of outgoing connections. A client of a stopped server could otherwise take the server's port, or even
/// connect to itself.
const PORTS: Range<u16> = 20_000..30_000;
const PORT_ATTEMPTS: u32 = 20;
/// Ten times as long as a slow machine needs for a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Commits wait for the disk, for measurements. Otherwise a crash of the machine may lose everything, but a crash of
    /// the server loses nothing.
    pub is_durable: bool,
    /// Further settings of the server, such as `work_mem=5MB`, which override the cluster's own.
    pub server_settings: Vec<String>,
    /// Files for the data directory, written before the server first starts. Only the server can read the files.
    pub data_files: Vec<(&'static str, String)>,
    /// Further variables of the server's environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Settings {
    fn server_arguments(&self) -> Vec<String> {
        let mut settings = vec![
            // Many workers and tests share a cluster.
            "max_connections=400",
            "listen_addresses=127.0.0.1",
            "shared_buffers=64MB",
            // Files in the cluster's directory, so that they are removed even after a crash.
            "dynamic_shared_memory_type=mmap",
            // Nothing rotates the log, so it must not contain the errors of statements.
            "log_destination=stderr",
            "log_min_messages=log",
            "log_checkpoints=off",
        ];
        if !self.is_durable {
            // `synchronous_commit` stays on: without it a crash of the server would undo acknowledged commits.
            settings.extend(["fsync=off", "full_page_writes=off", "max_wal_size=256MB"]);
        }
        let settings = settings.into_iter().map(str::to_owned);
        let settings = settings.chain(self.server_settings.clone());
        settings
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect()
    }
}

/// A running cluster. Dropping it stops the server and removes its files in the background; [`stop`](Self::stop) waits
/// for that.
///
/// Tests with different Tokio runtimes may share a cluster, but only the runtime that started it may call
/// [`crash`](Self::crash), [`restart`](Self::restart) and [`stop`](Self::stop).
pub struct ThrowawayPostgres {
    /// The shell that keeps the cluster. When this process ends, even by SIGKILL, the pipe to the shell closes. Then the
    /// shell stops the server and removes its files.
    supervisor: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    /// The cluster's directory, with `server.log` in it.
    pub directory: PathBuf,
    pub installation: Installation,
    /// For example `postgres (PostgreSQL) 17.2`.
    pub version: String,
    /// The port on 127.0.0.1. A [`restart`](Self::restart) does not change it.
    pub port: u16,
    pub password: String,
    /// The server's process, or `None` after a [`crash`](Self::crash).
    pub pid: Option<u32>,
}

impl ThrowawayPostgres {
    /// Makes a cluster, and waits until it answers queries.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&Settings::default()).await
    }

    pub async fn start_with(settings: &Settings) -> anyhow::Result<Self> {
        let installation = Installation::find(None).await?;
        let parent = installation::parent_directory(settings.is_durable);
        Self::start_in(&parent, &installation, settings, free_ports()).await
    }

    async fn start_in(
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
        ports: impl Iterator<Item = u16>,
    ) -> anyhow::Result<Self> {
        let mut started = Err(anyhow!("found no free TCP port on 127.0.0.1"));
        for port in ports {
            started = Self::start_on(port, parent, installation, settings).await;
            // Another process may have taken the port since the choice.
            if started.is_ok() || is_free(port) {
                break;
            }
        }
        started
    }

    async fn start_on(
        port: u16,
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let mut supervisor = installation
            .command("/bin/sh")
            .args(["-c", include_str!("postgres/supervisor.sh")])
            .arg("throwaway-postgres")
            .arg(parent)
            .arg(&installation.bindir)
            .args(settings.server_arguments())
            .current_dir(parent)
            .envs(settings.environment.clone())
            // Ctrl-C in a terminal must not stop the database of a worker that is still draining.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("can't start /bin/sh")?;
        let pipes = supervisor.stdin.take().zip(supervisor.stdout.take());
        let (orders, replies) = pipes.context("the shell has no pipes")?;
        let mut cluster = Self {
            supervisor,
            orders,
            replies: BufReader::new(replies),
            directory: PathBuf::new(),
            installation: installation.clone(),
            version: installation.version.clone(),
            port,
            password: Uuid::new_v4().simple().to_string(),
            pid: None,
        };
        let password = cluster.password.clone();
        let directory = cluster.ask(&password, "ready", "making the cluster");
        cluster.directory = directory.await?.into();
        let data = cluster.directory.join("data");
        for (name, text) in &settings.data_files {
            installation
                .write_for_server(&data.join(name), text)
                .with_context(|| format!("can't write {name} for PostgreSQL"))?;
        }
        cluster.start_server().await?;
        Ok(cluster)
    }

    async fn start_server(&mut self) -> anyhow::Result<()> {
        let order = format!("start {}", self.port);
        let pid = self.ask(&order, "up", "starting the server").await?;
        self.pid = pid.parse().ok();
        Ok(())
    }

    /// Sends an order to the supervisor, and waits for the reply that begins with `expected`. Returns the rest of the reply.
    async fn ask(&mut self, order: &str, expected: &str, doing: &str) -> anyhow::Result<String> {
        let exchange = async {
            // If the shell has ended, its replies have the reason.
            let order = format!("{order}\n");
            self.orders.write_all(order.as_bytes()).await.ok();
            let mut line = String::new();
            self.replies.read_line(&mut line).await?;
            if let Some(rest) = line.trim_end().strip_prefix(expected) {
                return Ok(rest.trim_start().to_owned());
            }
            let mut log = Vec::new();
            self.replies.read_to_end(&mut log).await?;
            let log = String::from_utf8_lossy(&log);
            Err(anyhow!(
                "PostgreSQL ended while {doing}; the end of its log:\n{}",
                log.trim()
            ))
        };
        timeout(STEP_TIMEOUT, exchange)
            .await
            .with_context(|| format!("PostgreSQL did not finish {doing} within {STEP_TIMEOUT:?}"))?
    }

    /// The URL of a database for the superuser.
    pub fn url(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        // A PGSSLMODE in the environment can't demand the TLS that this server does not have.
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// The URL of the database `postgres`, which every cluster has.
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// The variables with which programs that use libpq's names connect to a database as the superuser.
    pub fn libpq_variables(&self, database: &str) -> [(&'static str, String); 6] {
        [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", "postgres".to_owned()),
            ("PGPASSWORD", self.password.clone()),
            ("PGDATABASE", database.to_owned()),
            // As in the URL.
            ("PGSSLMODE", "disable".to_owned()),
        ]
    }

    /// Makes an empty database, and returns its URL.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(&self.admin_url()).await?;
        sqlx::query(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(self.url(name))
    }

    /// A program of the same installation, such as `pg_dump`.
    pub fn program(&self, name: &str) -> PathBuf {
        let server = self.installation.bindir.join("postgres");
        // Packages may link the server alone from another directory.
        server.canonicalize().unwrap_or(server).with_file_name(name)
    }

    /// Stops a running server as a crash would: connections break, and nothing is cleaned up.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        if self.pid.take().is_some() {
            self.ask("crash", "down", "crashing the server").await?;
        }
        Ok(())
    }

    /// Crashes a running server. Then starts the server on the same port, and waits until it has recovered.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.crash().await?;
        self.start_server().await
    }

    /// Stops the server, and waits until its files are gone.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop((self.orders, self.replies));
        timeout(STEP_TIMEOUT, self.supervisor.wait())
            .await
            .with_context(|| format!("PostgreSQL did not stop within {STEP_TIMEOUT:?}"))??;
        Ok(())
    }
}

pub fn free_ports() -> impl Iterator<Item = u16> {
    let ports = (0..PORT_ATTEMPTS).map(|_| rand::random_range(PORTS));
    ports.filter(|port| is_free(*port))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
