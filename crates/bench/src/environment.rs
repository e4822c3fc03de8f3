//! The environment of one run: a database with messages, the simulated API, and the processes that send.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use simulator::{Behaviour, Simulator, SimulatorConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};
use tempfile::NamedTempFile;
use testkit::postgres::{Settings, ThrowawayPostgres};
use tokio::process::Child;
use tokio::time::timeout;

use crate::hand_written;
use crate::measurements::count;
use crate::processes;
use crate::resource_usage::{
    Usage, cpu_us, cpu_with_children_us, database_usage, peak_memory_mib, since,
};

/// A limit that no machine reaches.
const NO_LIMIT: u32 = 1_000_000;
const BENCH_CONNECTIONS: u32 = 4;
/// The benchmark's own sessions have this name. All other sessions belong to the senders.
const APPLICATION_NAME: &str = "signaling-bench";
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(60);
/// A measurement fails if no call arrives for so long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Starts the server of all runs. Its commits wait for the disk.
pub(crate) async fn start_server() -> anyhow::Result<ThrowawayPostgres> {
    let settings = [
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("wal_compression", "off"),
    ];
    let settings = Settings {
        is_durable: true,
        server_settings: settings
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Settings::default()
    };
    ThrowawayPostgres::start_with(&settings).await
}

/// The program that sends.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    /// `worker run` of this binary.
    Worker(PathBuf),
    HandWritten,
}

impl Sender {
    /// Both tables have the same columns.
    pub(crate) fn table(&self) -> &'static str {
        match self {
            Self::Worker(_) => "signaling.outbox",
            Self::HandWritten => "hand_written.outbox",
        }
    }
}

/// The messages of a run, and the conditions of sending them.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) sender: Sender,
    pub(crate) processes: usize,
    /// Calls a second that the API allows each app.
    pub(crate) limit: Option<u32>,
    pub(crate) apps: usize,
    /// Finished messages.
    pub(crate) history: u64,
    /// Messages that are due when the senders start.
    pub(crate) backlog: u64,
    pub(crate) payload_bytes: u32,
    pub(crate) latency_ms: u64,
    /// Runs the worker under valgrind, which writes the number of executed instructions into this file.
    pub(crate) valgrind_log: Option<PathBuf>,
}

impl Workload {
    pub(crate) fn of(sender: &Sender) -> Self {
        Self {
            sender: sender.clone(),
            processes: 1,
            limit: None,
            apps: 1,
            history: 0,
            backlog: 0,
            payload_bytes: 50,
            latency_ms: 0,
            valgrind_log: None,
        }
    }
}

pub(crate) struct Environment<'a> {
    pub(crate) server: &'a ThrowawayPostgres,
    pub(crate) workload: Workload,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) api: Simulator,
}

/// The sending processes.
#[derive(Debug)]
pub(crate) struct Senders {
    before: Usage,
    pub(crate) processes: Vec<Child>,
    /// The workers may read it until they end.
    _apps_file: Option<NamedTempFile>,
}

/// The resources that sending took.
#[derive(Debug)]
pub(crate) struct Costs {
    pub(crate) used: Usage,
    pub(crate) peak_memory_mib: f64,
}

impl<'a> Environment<'a> {
    /// Creates the database with its rows, and starts the API.
    pub(crate) async fn create(
        server: &'a ThrowawayPostgres,
        workload: Workload,
    ) -> anyhow::Result<Self> {
        let mut admin = PgConnection::connect(&server.admin_url()).await?;
        // A failed run leaves its database behind. Autovacuum would work on it during this run.
        sqlx::raw_sql("drop database if exists bench with (force)")
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        let url = server.create_database("bench").await?;
        let options = PgConnectOptions::from_str(&url)?.application_name(APPLICATION_NAME);
        let pool = PgPoolOptions::new().max_connections(BENCH_CONNECTIONS);
        let environment = Self {
            pool: pool.connect_with(options).await?,
            api: Simulator::start(SimulatorConfig {
                behaviour: Behaviour {
                    limit: workload.limit,
                    latency_ms: workload.latency_ms,
                    ..Behaviour::default()
                },
                ..SimulatorConfig::default()
            })
            .await?,
            server,
            workload,
            url,
        };
        environment.create_schema().await?;
        environment.insert_rows().await?;
        Ok(environment)
    }

    async fn create_schema(&self) -> anyhow::Result<()> {
        let Sender::Worker(binary) = &self.workload.sender else {
            return self.execute(hand_written::SCHEMA).await;
        };
        let settings = [("DATABASE_URL", self.url.clone())];
        let migrated = processes::start(binary, &["migrate"], &settings)?
            .wait()
            .await?;
        ensure!(migrated.success(), "`{} migrate` failed", binary.display());
        Ok(())
    }

    async fn insert_rows(&self) -> anyhow::Result<()> {
        let Workload {
            apps,
            history,
            backlog,
            payload_bytes,
            ..
        } = self.workload;
        let table = self.workload.sender.table();
        let app = match apps {
            1 => "'default'".to_owned(),
            apps => format!("'app-' || n % {apps}"),
        };
        // A trigger refuses finished rows, except from a replication role.
        self.execute(&format!(
                "begin; set local session_replication_role = replica;
                 insert into {table} (app, sender, destination, payload, status, attempts, created_at, due_at, sent_at, finished_at, http_status)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('old ' || n, {payload_bytes}, '.'), 'message_sent', 1, at, at, at, at, 200
                 from (select n, now() - interval '1 day' + n * interval '1 ms' as at from generate_series(1, {history}) as n) as old;
                 commit"
            ))
        .await?;
        self.execute(&format!(
                "insert into {table} (app, sender, destination, payload)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('message ' || n, {payload_bytes}, '.')
                 from generate_series(1, {backlog}) as n"
            ))
        .await?;
        self.execute("vacuum analyze").await?;
        self.execute("checkpoint").await
    }

    pub(crate) async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        statement.execute(&self.pool).await?;
        Ok(())
    }

    /// Holds a snapshot, as a long report or a backup does. Vacuum keeps the row versions that the snapshot may see.
    pub(crate) async fn hold_snapshot_if(
        &self,
        is_wanted: bool,
    ) -> anyhow::Result<Option<Transaction<'static, Postgres>>> {
        if !is_wanted {
            return Ok(None);
        }
        let mut transaction = self.pool.begin().await?;
        let snapshot =
            "set transaction isolation level repeatable read; select count(*) from pg_class";
        sqlx::raw_sql(snapshot).execute(&mut *transaction).await?;
        Ok(Some(transaction))
    }

    pub(crate) async fn start_senders(&self) -> anyhow::Result<Senders> {
        let mut before = self.cpu(&[])?;
        self.wait_until_alone().await?;
        before.extend(database_usage(&self.pool).await?);
        let mut settings = vec![
            ("DATABASE_URL", self.url.clone()),
            ("AGORA_BASE_URL", self.api.base_url()),
            ("WORKER_LOG", "warn".into()),
            ("WORKER_OPS_ADDR", "off".into()),
            (
                "WORKER_RATE",
                self.workload.limit.unwrap_or(NO_LIMIT).to_string(),
            ),
        ];
        let mut apps_file = None;
        if self.workload.apps == 1 {
            let names = ["AGORA_APP_ID", "AGORA_API_KEY", "AGORA_API_SECRET"];
            settings.extend(names.map(|name| (name, "bench".to_owned())));
        } else {
            let file = self.write_apps_file()?;
            settings.push(("WORKER_CONFIG", file.path().display().to_string()));
            apps_file = Some(file);
        }
        let (program, argument) = match &self.workload.sender {
            Sender::HandWritten => (std::env::current_exe()?, "hand-written-loop"),
            Sender::Worker(binary) => (binary.clone(), "run"),
        };
        let start = || match &self.workload.valgrind_log {
            None => processes::start(&program, &[argument], &settings),
            Some(log) => {
                let arguments = [
                    "--tool=cachegrind",
                    "--cache-sim=no",
                    "--cachegrind-out-file=/dev/null",
                    &format!("--log-file={}", log.display()),
                    &program.display().to_string(),
                    argument,
                ];
                processes::start("valgrind".as_ref(), &arguments, &settings)
            }
        };
        let processes = (0..self.workload.processes).map(|_| start());
        Ok(Senders {
            before,
            processes: processes.collect::<Result<_, _>>()?,
            _apps_file: apps_file,
        })
    }

    fn write_apps_file(&self) -> anyhow::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        for app in 0..self.workload.apps {
            writeln!(
                file,
                "[apps.app-{app}]\napp_id = \"bench-{app}\"\napi_key = \"bench\"\napi_secret = \"bench\""
            )?;
        }
        Ok(file)
    }

    /// Processor time so far of the senders and of Postgres.
    pub(crate) fn cpu(&self, senders: &[Child]) -> anyhow::Result<Usage> {
        let mut sender_cpu_us = 0.0;
        for process in senders {
            sender_cpu_us += cpu_us(processes::pid(process)?)?;
        }
        Ok(Usage::from([
            ("sender_cpu_us", sender_cpu_us),
            ("postgres_cpu_us", self.server_cpu_us()?),
        ]))
    }

    fn server_cpu_us(&self) -> anyhow::Result<f64> {
        let pid = self.server.pid.context("the server has ended")?;
        cpu_with_children_us(pid)
    }

    pub(crate) async fn stop_senders(&self, senders: Senders) -> anyhow::Result<Costs> {
        let mut after = self.cpu(&senders.processes)?;
        let mut highest_mib: f64 = 0.0;
        for process in &senders.processes {
            highest_mib = highest_mib.max(peak_memory_mib(processes::pid(process)?)?);
        }
        for process in senders.processes {
            processes::stop(process).await?;
        }
        self.wait_until_alone().await?;
        after.extend(database_usage(&self.pool).await?);
        after.insert("postgres_cpu_us", self.server_cpu_us()?);
        Ok(Costs {
            used: since(&after, &senders.before),
            peak_memory_mib: highest_mib,
        })
    }

    /// Waits until only the benchmark is connected. A session adds its work to the database's statistics when it ends,
    /// which is a moment after its client.
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

    pub(crate) async fn wait_for_calls(&self, calls: u64) -> anyhow::Result<()> {
        let (mut last, mut last_progress) = (0, Instant::now());
        loop {
            let received = self.api.ledger().summary().calls;
            if received >= calls {
                return Ok(());
            }
            if received > last {
                (last, last_progress) = (received, Instant::now());
            }
            ensure!(
                last_progress.elapsed() < PROGRESS_TIMEOUT,
                "the API received {received} of {calls} calls, and none in the last {PROGRESS_TIMEOUT:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Calls a second between two calls, given by their position in the order of arrival.
    pub(crate) fn rate_between(&self, first: u64, last: u64) -> anyhow::Result<f64> {
        let at_us = |seq: u64| {
            let calls = self.api.ledger().calls_after(seq - 1, 1);
            let call = calls.first().filter(|call| call.seq == seq);
            let call = call.with_context(|| format!("the ledger no longer has call {seq}"))?;
            anyhow::Ok(call.at_us)
        };
        let us = at_us(last)? - at_us(first)?;
        Ok(count(last - first) * 1e6 / count(us))
    }

    pub(crate) async fn check_all_are_sent(&self) -> anyhow::Result<()> {
        let left = self.count_where("status <> 'message_sent'").await?;
        ensure!(left == 0, "{left} messages were not sent");
        Ok(())
    }

    async fn count_where(&self, condition: &str) -> anyhow::Result<u64> {
        let table = self.workload.sender.table();
        let statement = AssertSqlSafe(format!("select count(*) from {table} where {condition}"));
        let rows: i64 = sqlx::query_scalar(statement).fetch_one(&self.pool).await?;
        Ok(u64::try_from(rows)?)
    }

    /// Stops the API, and checks that each accepted call is recorded and no message was sent twice.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        let summary = self.api.ledger().summary();
        let sent = self.count_where("status = 'message_sent'").await?;
        let recorded = sent.saturating_sub(self.workload.history);
        self.pool.close().await;
        self.api.stop().await;
        let (accepted, duplicates) = (summary.accepted, summary.duplicates);
        ensure!(duplicates == 0, "{duplicates} messages were sent twice");
        ensure!(
            recorded == accepted,
            "the API accepted {accepted} messages, and {recorded} are recorded as sent"
        );
        Ok(())
    }
}
