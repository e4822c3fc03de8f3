//! The environment of one run: a database, the simulated API, and the processes that send.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Postgres, Transaction};
use tempfile::NamedTempFile;
use tokio::time::timeout;

use crate::api::Api;
use crate::child::{self, ChildProcess};
use crate::database_server::{APPLICATION_NAME, DatabaseServer, connect_options};
use crate::hand_written;
use crate::resource_usage::{self, ResourceUsage};

/// A limit that no machine reaches.
const NO_LIMIT: u32 = 1_000_000;
/// Rows of one insert statement.
const ROWS_PER_INSERT: u64 = 500_000;
/// Connections of the benchmark itself.
const CONNECTIONS: u32 = 4;
/// How long the server may take to end the sessions of a process that has ended.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the sessions are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The program that sends.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    /// `worker run` of this binary.
    Worker(PathBuf),
    HandWritten,
}

impl Sender {
    /// The table that it sends from. Both have the same columns.
    pub(crate) fn table(&self) -> &'static str {
        match self {
            Self::Worker(_) => "signaling.outbox",
            Self::HandWritten => "hand_written.outbox",
        }
    }
}

/// The load, and the conditions under which it is sent.
#[derive(Debug, Clone)]
pub(crate) struct EnvironmentConfig {
    pub(crate) sender: Sender,
    /// Sending processes.
    pub(crate) processes: usize,
    /// Calls a second that the API allows each app.
    pub(crate) limit: Option<u32>,
    pub(crate) apps: usize,
    /// Finished messages.
    pub(crate) history: u64,
    /// Messages that are due when the senders start.
    pub(crate) backlog: u64,
    pub(crate) payload_bytes: u32,
    /// How long the API takes to respond.
    pub(crate) latency: Duration,
    /// Runs the worker under valgrind, which writes the number of executed instructions into this file.
    pub(crate) valgrind_log: Option<PathBuf>,
}

impl EnvironmentConfig {
    pub(crate) fn of(sender: Sender) -> Self {
        Self {
            sender,
            processes: 1,
            limit: None,
            apps: 1,
            history: 0,
            backlog: 0,
            payload_bytes: 50,
            latency: Duration::ZERO,
            valgrind_log: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Environment<'a> {
    server: &'a DatabaseServer,
    config: EnvironmentConfig,
    database: String,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) api: Api,
}

impl<'a> Environment<'a> {
    /// Creates the database with its rows, and starts the API.
    pub(crate) async fn create(
        server: &'a DatabaseServer,
        config: EnvironmentConfig,
    ) -> anyhow::Result<Self> {
        let (database, url) = server.create_database().await?;
        let options = connect_options(&url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await?;
        let api = Api::start(config.limit, config.latency).await?;
        let environment = Self {
            server,
            config,
            database,
            url,
            pool,
            api,
        };
        environment.create_schema().await?;
        environment.insert_rows().await?;
        Ok(environment)
    }

    async fn create_schema(&self) -> anyhow::Result<()> {
        match &self.config.sender {
            Sender::Worker(binary) => {
                let settings = [("DATABASE_URL", self.url.clone())];
                child::run_to_end(binary, &["migrate"], &settings).await
            }
            Sender::HandWritten => self.execute(hand_written::SCHEMA).await,
        }
    }

    async fn insert_rows(&self) -> anyhow::Result<()> {
        let EnvironmentConfig {
            history,
            backlog,
            payload_bytes,
            ..
        } = self.config;
        let (app, table) = (self.app_of("n"), self.config.sender.table());
        self.insert(history, |numbers| {
            // A trigger refuses to insert finished rows, except in the role of a replica.
            format!(
                "begin; set local session_replication_role = replica;
                 insert into {table} (app, sender, destination, payload, status, attempts, created_at, due_at, sent_at, finished_at, http_status)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('old ' || n, {payload_bytes}, '.'), 'message_sent', 1, at, at, at, at, 200
                 from (select n, now() - interval '1 day' + n * interval '1 ms' as at from {numbers} as n) as old;
                 commit"
            )
        })
        .await?;
        self.insert(backlog, |numbers| {
            format!(
                "insert into {table} (app, sender, destination, payload)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('message ' || n, {payload_bytes}, '.') from {numbers} as n"
            )
        })
        .await?;
        self.execute("vacuum analyze").await?;
        self.execute("checkpoint").await
    }

    pub(crate) fn sender(&self) -> &Sender {
        &self.config.sender
    }

    /// Holds a snapshot, as a long report or a backup does: vacuum can't remove row versions that the snapshot may see.
    pub(crate) async fn hold_snapshot(&self) -> anyhow::Result<Transaction<'static, Postgres>> {
        let mut transaction = self.pool.begin().await?;
        let connection: &mut PgConnection = &mut transaction;
        connection
            .execute("set transaction isolation level repeatable read")
            .await?;
        connection.execute("select count(*) from pg_class").await?;
        Ok(transaction)
    }

    /// Logs each statement of sessions that begin from now on.
    pub(crate) async fn log_statements(&self) -> anyhow::Result<()> {
        let Self { database, .. } = self;
        self.execute(&format!(
            "alter database {database} set log_statement = 'all'"
        ))
        .await
    }

    /// An SQL expression for the app of a row.
    fn app_of(&self, number: &str) -> String {
        if self.config.apps == 1 {
            "'default'".into()
        } else {
            format!("'app-' || {number} % {}", self.config.apps)
        }
    }

    async fn insert(&self, rows: u64, statement: impl Fn(&str) -> String) -> anyhow::Result<()> {
        let mut first = 1;
        while first <= rows {
            let last = rows.min(first + ROWS_PER_INSERT - 1);
            self.execute(&statement(&format!("generate_series({first}, {last})")))
                .await?;
            first = last + 1;
        }
        Ok(())
    }

    async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Starts the sending processes.
    pub(crate) async fn start_senders(&self) -> anyhow::Result<Senders> {
        let mut before = ResourceUsage {
            sender_cpu_s: Some(0.0),
            postgres_cpu_s: self.server_cpu_s(),
            ..ResourceUsage::default()
        };
        self.wait_until_alone().await?;
        before.read_database(&self.pool).await?;
        let mut settings = vec![
            ("DATABASE_URL", self.url.clone()),
            ("AGORA_BASE_URL", self.api.url.clone()),
            ("WORKER_LOG", "warn".into()),
        ];
        let mut apps_file = None;
        let (program, argument) = match &self.config.sender {
            Sender::HandWritten => (child::bench_binary()?, "hand-written-loop"),
            Sender::Worker(binary) => {
                settings.push(("WORKER_OPS_ADDR", "off".into()));
                let limit = self.config.limit.unwrap_or(NO_LIMIT);
                settings.push(("WORKER_RATE", limit.to_string()));
                if self.config.apps == 1 {
                    settings.extend([
                        ("AGORA_APP_ID", "bench".to_owned()),
                        ("AGORA_API_KEY", "bench".into()),
                        ("AGORA_API_SECRET", "bench".into()),
                    ]);
                } else {
                    let file = self.write_apps_file()?;
                    settings.push(("WORKER_CONFIG", file.path().display().to_string()));
                    apps_file = Some(file);
                }
                (binary.clone(), "run")
            }
        };
        let mut wrapper = Vec::new();
        if let Some(log) = &self.config.valgrind_log {
            wrapper.extend(["valgrind", "--tool=cachegrind", "--cache-sim=no"].map(String::from));
            wrapper.push("--cachegrind-out-file=/dev/null".into());
            wrapper.push(format!("--log-file={}", log.display()));
        }
        let processes = (0..self.config.processes)
            .map(|_| {
                ChildProcess::start_under(&wrapper, "sender", &program, &[argument], &settings)
            })
            .collect::<Result<_, _>>()?;
        Ok(Senders {
            before,
            processes,
            _apps_file: apps_file,
        })
    }

    fn write_apps_file(&self) -> anyhow::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        for app in 0..self.config.apps {
            writeln!(
                file,
                "[apps.app-{app}]\napp_id = \"bench-{app}\"\napi_key = \"bench\"\napi_secret = \"bench\""
            )?;
        }
        file.flush()?;
        Ok(file)
    }

    /// The processor time of the senders and the server so far.
    pub(crate) fn read_cpu(&self, senders: &Senders) -> anyhow::Result<ResourceUsage> {
        let mut sum = Some(0.0);
        for process in &senders.processes {
            let used = resource_usage::cpu_s(process.pid()?);
            sum = sum.and_then(|sum| Some(sum + used?));
        }
        Ok(ResourceUsage {
            sender_cpu_s: sum,
            postgres_cpu_s: self.server_cpu_s(),
            ..ResourceUsage::default()
        })
    }

    /// The processor time of the server so far.
    pub(crate) fn server_cpu_s(&self) -> Option<f64> {
        resource_usage::cpu_with_children_s(self.server.pid()?)
    }

    /// Stops the senders, and returns their costs.
    pub(crate) async fn stop_senders(&self, senders: Senders) -> anyhow::Result<Costs> {
        let mut after = self.read_cpu(&senders)?;
        let mut peak_memory_mib: Option<f64> = None;
        for process in &senders.processes {
            let peak = resource_usage::peak_memory_mib(process.pid()?);
            peak_memory_mib = peak_memory_mib.into_iter().chain(peak).reduce(f64::max);
        }
        for process in senders.processes {
            process.stop().await?;
        }
        self.wait_until_alone().await?;
        after.read_database(&self.pool).await?;
        after.postgres_cpu_s = self.server_cpu_s();
        Ok(Costs {
            used: after.since(&senders.before),
            peak_memory_mib,
        })
    }

    /// Waits until only the benchmark is connected. A session adds its work to the statistics of the database when it
    /// ends, which is a moment after its client has ended.
    async fn wait_until_alone(&self) -> anyhow::Result<()> {
        let alone = async {
            loop {
                let others: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity
                     where datname = current_database() and backend_type = 'client backend'
                     and application_name <> $1",
                )
                .bind(APPLICATION_NAME)
                .fetch_one(&self.pool)
                .await?;
                if others == 0 {
                    return Ok(());
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        timeout(SESSION_END_TIMEOUT, alone)
            .await
            .context("the server has not ended the sessions of a process that has ended")?
    }

    /// Checks that every message was sent.
    pub(crate) async fn check_all_are_final(&self) -> anyhow::Result<()> {
        let left = self.count_where("status <> 'message_sent'").await?;
        ensure!(left == 0, "{left} messages were not sent");
        Ok(())
    }

    /// The most calls of an app in any second, by the start times that the workers recorded.
    pub(crate) async fn fullest_second_of_starts(&self) -> anyhow::Result<u64> {
        let fullest: i64 = sqlx::query_scalar(
            "select coalesce(max(signaling.peak_rate(app, '-infinity', 'infinity')), 0)
             from (select distinct app from signaling.outbox) as apps",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(fullest)?)
    }

    /// Messages recorded as accepted by the API, without those of the history.
    async fn recorded(&self) -> anyhow::Result<u64> {
        let sent = self.count_where("status = 'message_sent'").await?;
        Ok(sent.saturating_sub(self.config.history))
    }

    async fn count_where(&self, condition: &str) -> anyhow::Result<u64> {
        let table = self.config.sender.table();
        let statement = format!("select count(*) from {table} where {condition}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(rows)?)
    }

    /// Stops the API, drops the database, and checks that each accepted call is recorded and no message was sent twice.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        let summary = self.api.summary().await?;
        let (duplicates, untracked) = (summary.duplicates, summary.untracked_messages);
        let apps = summary.apps.values();
        let accepted: u64 = apps.filter_map(|app| app.by_status.get(&200)).sum();
        let recorded = self.recorded().await?;
        self.api.stop().await?;
        self.pool.close().await;
        self.server.drop_database(&self.database).await?;
        ensure!(duplicates == 0, "{duplicates} messages were sent twice");
        ensure!(
            untracked == 0,
            "the ledger was full, and did not check {untracked} messages for duplicates"
        );
        ensure!(
            recorded == accepted,
            "the API accepted {accepted} messages, and {recorded} are recorded as sent"
        );
        Ok(())
    }
}

/// The sending processes.
#[derive(Debug)]
pub(crate) struct Senders {
    before: ResourceUsage,
    processes: Vec<ChildProcess>,
    /// The workers read it while they run.
    _apps_file: Option<NamedTempFile>,
}

/// The costs of sending.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) used: ResourceUsage,
    /// The highest peak of the processes.
    pub(crate) peak_memory_mib: Option<f64>,
}
