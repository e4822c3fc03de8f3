//! A PostgreSQL cluster that exists only as long as it is needed: made from the programs that the machine has, on a
//! port of its own, and gone without a trace afterwards, even if this process is killed.

mod error;
mod installation;
mod supervisor;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub use self::error::PostgresError;
use self::{
    installation::Installation,
    supervisor::{STEP_LIMIT, Supervisor, log_tail},
};

/// Below the range from which systems take the ports of outgoing connections. In it, a client that tries a server which
/// is down could take that server's port, and even be connected to itself.
const PORTS: Range<u16> = 20_000..30_000;

/// Of ten thousand ports, this many in a row are not taken by chance.
const PORT_ATTEMPTS: u32 = 20;

const READY_POLL: Duration = Duration::from_millis(20);

/// What may stand in a URL's path as it is, of what the name of a database usually holds.
const ESCAPED_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that was committed is lost when the server dies ([`ThrowawayPostgres::crash`]); everything may be lost
    /// when the machine does. Quick, for tests and demonstrations.
    ///
    /// `synchronous_commit` stays on: without it a crash would undo commits that were already answered for, which is
    /// no fault that a test of delivery should see. Without `fsync` it costs next to nothing.
    #[default]
    Throwaway,
    /// As in production: commits wait for the disk. For measurements.
    Durable,
}

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    pub durability: Durability,
    /// How many connections it takes at once.
    pub max_connections: u16,
    /// The directory of `initdb` and `postgres`; where `None`, `WORKER_PG_BINDIR`, `PATH` and the usual places are
    /// searched.
    pub bindir: Option<PathBuf>,
    /// More of the server's settings, by name; where they are set here already, these count.
    pub server_settings: BTreeMap<String, String>,
    /// Files to put into the data directory before the server first starts, by name, in the place of those of the same
    /// name. Only the user that runs the server can read them, as it demands of its certificate's key.
    pub data_files: BTreeMap<String, String>,
    /// More variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_connections: 200,
            bindir: None,
            server_settings: BTreeMap::new(),
            data_files: BTreeMap::new(),
            environment: Vec::new(),
        }
    }
}

impl Settings {
    fn server_arguments(&self) -> Vec<String> {
        let mut settings = vec![
            format!("max_connections={}", self.max_connections),
            "listen_addresses=127.0.0.1".to_owned(),
            "shared_buffers=64MB".to_owned(),
            // Below the cluster's directory, and so removed with it even after the server was killed.
            "dynamic_shared_memory_type=mmap".to_owned(),
            // The log is never rotated, so it holds what the server says of itself; a statement's errors go to who
            // sent it, and a test may make any number of them.
            "log_destination=stderr".to_owned(),
            "log_min_messages=log".to_owned(),
            "log_checkpoints=off".to_owned(),
        ];
        if self.durability == Durability::Throwaway {
            let quick = ["fsync=off", "full_page_writes=off", "max_wal_size=256MB"];
            settings.extend(quick.map(str::to_owned));
        }
        let given = self.server_settings.iter();
        settings.extend(given.map(|(name, value)| format!("{name}={value}")));
        settings
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect()
    }
}

/// A cluster of its own, running. Dropping it stops the server and removes its files in the background;
/// [`stop`](Self::stop) waits for that.
///
/// It can be shared by tests that each have their own runtime, save for [`crash`](Self::crash),
/// [`restart`](Self::restart) and [`stop`](Self::stop), which belong to the runtime that it was started in.
pub struct ThrowawayPostgres {
    supervisor: Supervisor,
    directory: PathBuf,
    bindir: PathBuf,
    version: String,
    port: u16,
    password: String,
    pid: Option<u32>,
}

impl fmt::Debug for ThrowawayPostgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ThrowawayPostgres")
            .field("directory", &self.directory)
            .field("version", &self.version)
            .field("port", &self.port)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl ThrowawayPostgres {
    /// Makes a cluster and starts it; it answers queries when this returns. Takes a second or two.
    ///
    /// # Errors
    /// When the machine has no PostgreSQL server, or it does not start.
    pub async fn start() -> Result<Self, PostgresError> {
        Self::start_with(&Settings::default()).await
    }

    /// Like [`start`](Self::start), with other settings.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(settings: &Settings) -> Result<Self, PostgresError> {
        let installation = Installation::find(settings.bindir.as_deref()).await?;
        let parent = installation.parent_directory(settings.durability)?;
        Self::start_in(&parent, &installation, settings).await
    }

    async fn start_in(
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
    ) -> Result<Self, PostgresError> {
        let mut clashes_left = PORT_ATTEMPTS;
        loop {
            let port = free_port()?;
            match Self::start_on(port, parent, installation, settings).await {
                // Another process took the port after it was seen to be free.
                Err(PostgresError::Failed { .. }) if clashes_left > 0 && !is_free(port) => {
                    clashes_left -= 1;
                }
                started => return started,
            }
        }
    }

    async fn start_on(
        port: u16,
        parent: &Path,
        installation: &Installation,
        settings: &Settings,
    ) -> Result<Self, PostgresError> {
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
            bindir: installation.bindir.clone(),
            version: installation.version.clone(),
            port,
            password,
            pid: None,
        };
        let data = cluster.directory.join("data");
        for (name, text) in &settings.data_files {
            installation
                .write_for_server(&data.join(name), text)
                .map_err(PostgresError::io("writing a file for the server"))?;
        }
        cluster.start_server().await?;
        Ok(cluster)
    }

    async fn start_server(&mut self) -> Result<(), PostgresError> {
        let doing = "starting the server";
        let pid = self
            .supervisor
            .ask(&format!("start {}", self.port), "up", doing)
            .await?;
        self.pid = pid.parse().ok();

        let url = self.admin_url();
        let answers = async {
            while !answers(&url).await {
                sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            answered = timeout(STEP_LIMIT, answers) => if answered.is_ok() { return Ok(()) },
            failure = self.supervisor.failure(doing) => return Err(failure),
        }
        let log = log_tail(&self.directory).await;
        Err(PostgresError::TimedOut {
            doing,
            after: STEP_LIMIT,
            log,
        })
    }

    /// The URL of a database of this cluster, for its superuser.
    pub fn url(&self, database: &str) -> String {
        let Self { port, password, .. } = self;
        let database = utf8_percent_encode(database, ESCAPED_IN_URLS);
        // Said in the URL, so that PGSSLMODE in the environment can't ask for what this server does not have.
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// The URL of the database `postgres`, which every cluster has.
    pub fn admin_url(&self) -> String {
        self.url("postgres")
    }

    /// How a person connects to a database of this cluster, to be pasted into a shell.
    pub fn psql_command(&self, database: &str) -> String {
        format!("psql '{}'", self.url(database))
    }

    /// Makes an empty database, and returns its URL.
    ///
    /// # Errors
    /// When there is one of that name, or the server is down.
    pub async fn create_database(&self, name: &str) -> Result<String, PostgresError> {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        let mut connection = PgConnection::connect(&self.admin_url()).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(self.url(name))
    }

    /// The server's process, or `None` after a [`crash`](Self::crash).
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The TCP port on 127.0.0.1; stays the same over a [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server calls itself, such as `postgres (PostgreSQL) 17.2`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A program of the same installation, such as `pg_dump`. Where the server is found by way of a link, the other
    /// programs lie beside what the link leads to; else the `PATH` decides.
    pub fn program(&self, name: &str) -> PathBuf {
        let server = self.bindir.join("postgres");
        let server = server.canonicalize().unwrap_or(server);
        let program = server.with_file_name(name);
        if program.is_file() {
            program
        } else {
            name.into()
        }
    }

    /// Where its files are while it exists, with `server.log` among them.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the server down as a crash would: connections are cut, nothing is tidied up. Returns when it is gone. Does
    /// nothing if it is down already.
    ///
    /// # Errors
    /// When the server had ended by itself before.
    pub async fn crash(&mut self) -> Result<(), PostgresError> {
        if self.pid.take().is_some() {
            self.supervisor
                .ask("crash", "down", "crashing the server")
                .await?;
        }
        Ok(())
    }

    /// Starts the server again, after a crash, on the same port and with the same data, and waits until it has
    /// recovered and answers. One that is still running is crashed first.
    ///
    /// # Errors
    /// When it does not come up, such as when another process took the port meanwhile.
    pub async fn restart(&mut self) -> Result<(), PostgresError> {
        self.crash().await?;
        self.start_server().await
    }

    /// Stops the server, and waits until it and its files are gone.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn stop(self) -> Result<(), PostgresError> {
        self.supervisor.end().await
    }
}

/// Whether the server takes a connection and answers on it.
async fn answers(url: &str) -> bool {
    let Ok(mut connection) = PgConnection::connect(url).await else {
        return false;
    };
    let alive = connection.ping().await.is_ok();
    // A connection that can't be closed in good order is closed by its end all the same.
    connection.close().await.is_ok() && alive
}

fn free_port() -> Result<u16, PostgresError> {
    (0..PORT_ATTEMPTS)
        .map(|_| rand::random_range(PORTS))
        .find(|&port| is_free(port))
        .ok_or(PostgresError::NoPort)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
