//! A throwaway PostgreSQL cluster: made with the programs of this machine, on its own port, and removed afterwards even if
//! this process is killed.

mod installation;
mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::installation::Installation;
use self::supervisor::{STEP_TIMEOUT, Supervisor};

/// Below the ports of outgoing connections. A client of a stopped server could otherwise take the server's port, or even
/// connect to itself.
const PORTS: Range<u16> = 20_000..30_000;
const PORT_ATTEMPTS: u32 = 20;
const READY_POLL: Duration = Duration::from_millis(20);
const ESCAPED_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_');

#[derive(Debug, Clone)]
pub struct Settings {
    /// Commits wait for the disk, for measurements. Otherwise a crash of the machine may lose everything, but a crash of
    /// the server loses nothing.
    pub is_durable: bool,
    pub max_connections: u16,
    /// Further settings of the server, which override the cluster's own.
    pub server_settings: BTreeMap<String, String>,
    /// Files for the data directory, written before the server first starts. Only the server can read the files.
    pub data_files: BTreeMap<String, String>,
    /// Further variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_durable: false,
            max_connections: 200,
            server_settings: BTreeMap::new(),
            data_files: BTreeMap::new(),
            environment: Vec::new(),
        }
    }
}

impl Settings {
    fn server_arguments(&self) -> Vec<String> {
        let max_connections = format!("max_connections={}", self.max_connections);
        let mut settings = vec![
            &*max_connections,
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
        let given = self.server_settings.iter();
        settings
            .chain(given.map(|(name, value)| format!("{name}={value}")))
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
    supervisor: Supervisor,
    /// The cluster's directory, with `server.log` in it.
    pub directory: PathBuf,
    pub(crate) installation: Installation,
    /// For example `postgres (PostgreSQL) 17.2`.
    pub version: String,
    /// The port on 127.0.0.1. A [`restart`](Self::restart) does not change it.
    pub port: u16,
    pub(crate) password: String,
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
        Self::start_in(&parent, &installation, settings).await
    }

    async fn start_in(
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let mut attempts = 1;
        loop {
            let port = free_port()?;
            match Self::start_on(port, parent, installation, settings).await {
                // Another process has taken the port meanwhile.
                Err(_) if attempts < PORT_ATTEMPTS && !is_free(port) => attempts += 1,
                started => return started,
            }
        }
    }

    async fn start_on(
        port: u16,
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let arguments = settings.server_arguments();
        let environment = &settings.environment;
        let mut supervisor = Supervisor::spawn(installation, parent, &arguments, environment)?;
        let password = Uuid::new_v4().simple().to_string();
        let directory = supervisor
            .ask(&password, "ready", "making the cluster")
            .await?;
        let mut cluster = Self {
            supervisor,
            directory: directory.into(),
            installation: installation.clone(),
            version: installation.version.clone(),
            port,
            password,
            pid: None,
        };
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
        let doing = "starting the server";
        let order = format!("start {}", self.port);
        let pid = self.supervisor.ask(&order, "up", doing).await?;
        self.pid = pid.parse().ok();
        let url = self.admin_url();
        let answers = async {
            while !answers(&url).await {
                sleep(READY_POLL).await;
            }
        };
        let answered = tokio::select! {
            answered = timeout(STEP_TIMEOUT, answers) => answered,
            failure = self.supervisor.failure(doing) => return Err(failure),
        };
        answered.with_context(|| format!("PostgreSQL did not answer within {STEP_TIMEOUT:?}"))
    }

    /// The URL of a database for the superuser.
    pub fn url(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        let database = utf8_percent_encode(database, ESCAPED_IN_URLS);
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

    /// A command for a shell that opens a database.
    pub fn psql_command(&self, database: &str) -> String {
        format!("psql '{}'", self.url(database))
    }

    /// Makes an empty database, and returns its URL.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        let mut connection = PgConnection::connect(&self.admin_url()).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(self.url(name))
    }

    /// A program of the same installation, such as `pg_dump`.
    pub fn program(&self, name: &str) -> PathBuf {
        let server = self.installation.bindir.join("postgres");
        // Packages may link the server alone from another directory.
        let server = server.canonicalize().unwrap_or(server);
        let program = server.with_file_name(name);
        if program.is_file() {
            program
        } else {
            name.into()
        }
    }

    /// Stops a running server as a crash would: connections break, and nothing is cleaned up.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        if self.pid.take().is_some() {
            self.supervisor
                .ask("crash", "down", "crashing the server")
                .await?;
        }
        Ok(())
    }

    /// Crashes a running server. Then starts the server on the same port, and waits until it has recovered.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.crash().await?;
        self.start_server().await
    }

    /// Stops the server, and waits until its files are gone.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.supervisor.end().await
    }
}

async fn answers(url: &str) -> bool {
    let Ok(mut connection) = PgConnection::connect(url).await else {
        return false;
    };
    connection.ping().await.is_ok() && connection.close().await.is_ok()
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    (0..PORT_ATTEMPTS)
        .map(|_| rand::random_range(PORTS))
        .find(|&port| is_free(port))
        .context("found no free TCP port on 127.0.0.1")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
