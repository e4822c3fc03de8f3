//! The environment of one run: a database with messages, the simulated API, and the processes that send.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::{Running, Worker, app_table, comes_true};
use simulator::{Behaviour, Simulator, SimulatorConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};
use testkit::postgres::ThrowawayPostgres;

use crate::hand_written;
use crate::measurements::count;
use crate::resource_usage::{Usage, cpu_us, database_usage, peak_memory_mib, since};

/// A limit that no machine reaches.
const NO_LIMIT: u32 = 1_000_000;
const BENCH_CONNECTIONS: u32 = 4;
/// The benchmark's own sessions have this name. All other sessions belong to the senders.
const APPLICATION_NAME: &str = "signaling-bench";
/// A measurement fails if no call arrives, or the senders' sessions do not end, within this time.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The program that sends.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    /// The worker's binary.
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

/// The messages of a run, the conditions of sending them, and the part to measure.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    pub(crate) processes: usize,
    /// Calls a second that the API allows each app.
    pub(crate) limit: Option<u32>,
    pub(crate) apps: usize,
    /// Finished messages.
    pub(crate) history: u64,
    /// Messages that are due when the senders start. The first `skipped` calls are not measured.
    pub(crate) skipped: u64,
    pub(crate) measured: u64,
    pub(crate) left_over: u64,
    /// Messages that the benchmark inserts one by one, to measure their delays.
    pub(crate) inserted: u64,
    pub(crate) payload_bytes: u32,
    pub(crate) latency: Duration,
    /// Another session holds a snapshot, as a long report or a backup does. Vacuum keeps the row versions that the
    /// snapshot may see.
    pub(crate) holds_snapshot: bool,
    /// Each insert notifies, as if a worker were idle.
    pub(crate) notifies: bool,
    pub(crate) measured_for: Duration,
    /// Runs the worker under valgrind, which writes the number of executed instructions into this file.
    pub(crate) valgrind_log: Option<PathBuf>,
}

impl Workload {
    pub(crate) fn usual() -> Self {
        Self {
            processes: 1,
            apps: 1,
            payload_bytes: 50,
            ..Self::default()
        }
    }
}

pub(crate) struct Environment<'a> {
    server: &'a ThrowawayPostgres,
    pub(crate) sender: &'a Sender,
    pub(crate) workload: &'a Workload,
    pub(crate) url: String,
    pub(crate) pool: PgPool,
    pub(crate) api: Simulator,
    snapshot: Option<Transaction<'static, Postgres>>,
}

/// The sending processes. If one of them fails, the benchmark panics and prints their output.
pub(crate) struct Senders {
    before: Usage,
    pub(crate) processes: Vec<Running>,
}

impl<'a> Environment<'a> {
    /// Creates the database with its rows, and starts the API.
    pub(crate) async fn create(
        server: &'a ThrowawayPostgres,
        sender: &'a Sender,
        workload: &'a Workload,
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
        let mut config = SimulatorConfig::default();
        config.behaviour = Behaviour {
            limit: workload.limit,
            latency: workload.latency,
            ..config.behaviour
        };
        let mut environment = Self {
            pool: pool.connect_with(options).await?,
            api: Simulator::start(config).await?,
            server,
            sender,
            workload,
            url,
            snapshot: None,
        };
        environment.create_schema().await?;
        environment.insert_rows().await?;
        if workload.holds_snapshot {
            let mut transaction = environment.pool.begin().await?;
            let snapshot =
                "set transaction isolation level repeatable read; select count(*) from pg_class";
            sqlx::raw_sql(snapshot).execute(&mut *transaction).await?;
            environment.snapshot = Some(transaction);
        }
        Ok(environment)
    }

    async fn create_schema(&self) -> anyhow::Result<()> {
        let Sender::Worker(binary) = self.sender else {
            return self.execute(hand_written::SCHEMA).await;
        };
        let migrate = Worker::new(&["migrate"]).binary(binary);
        let migrated = migrate.env("DATABASE_URL", &self.url).finish().await;
        ensure!(migrated.code == Some(0), "the schema: {}", migrated.stderr);
        Ok(())
    }

    async fn insert_rows(&self) -> anyhow::Result<()> {
        let Workload {
            apps,
            history,
            payload_bytes,
            ..
        } = self.workload;
        let backlog = self.workload.skipped + self.workload.measured + self.workload.left_over;
        let table = self.sender.table();
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

    pub(crate) async fn start_senders(&self) -> anyhow::Result<Senders> {
        self.wait_until_alone().await?;
        let mut before = self.cpu(&[])?;
        before.extend(database_usage(&self.pool).await?);
        let processes = (0..self.workload.processes).map(|_| Ok(self.sender()?.start()));
        Ok(Senders {
            before,
            processes: processes.collect::<anyhow::Result<_>>()?,
        })
    }

    fn sender(&self) -> anyhow::Result<Worker> {
        let command = match (self.sender, &self.workload.valgrind_log) {
            (Sender::HandWritten, _) => {
                Worker::new(&["--hand-written-loop"]).binary(&std::env::current_exe()?)
            }
            (Sender::Worker(binary), None) => Worker::new(&["run"]).binary(binary),
            (Sender::Worker(binary), Some(log)) => {
                Worker::new(&["--tool=cachegrind", "--cache-sim=no"])
                    .arg("--cachegrind-out-file=/dev/null")
                    .arg(&format!("--log-file={}", log.display()))
                    .arg(&binary.display().to_string())
                    .arg("run")
                    .binary("valgrind".as_ref())
            }
        };
        let limit = self.workload.limit.unwrap_or(NO_LIMIT);
        let command = command
            .env("DATABASE_URL", &self.url)
            .env("AGORA_BASE_URL", &self.api.base_url())
            .env("WORKER_LOG", "warn")
            .env("WORKER_RATE", &limit.to_string());
        Ok(match self.workload.apps {
            1 => command
                .env("AGORA_APP_ID", "bench")
                .env("AGORA_API_KEY", "bench")
                .env("AGORA_API_SECRET", "bench"),
            apps => {
                let tables = (0..apps).map(|app| app_table(&format!("app-{app}"), ""));
                command.file("WORKER_CONFIG", &tables.collect::<String>())
            }
        })
    }

    /// Processor time so far of the senders and of Postgres.
    pub(crate) fn cpu(&self, senders: &[Running]) -> anyhow::Result<Usage> {
        let mut sender_cpu_us = 0.0;
        for process in senders {
            sender_cpu_us += cpu_us(process.pid).context("a sender has ended")?;
        }
        let server = self.server.pid.context("the server has ended")?;
        Ok(Usage::from([
            ("sender_cpu_us", sender_cpu_us),
            ("postgres_cpu_us", cpu_us(server)?),
        ]))
    }

    /// Returns the used resources, and the highest memory of a process in MiB.
    pub(crate) async fn stop_senders(&self, senders: Senders) -> anyhow::Result<(Usage, f64)> {
        let mut after = self.cpu(&senders.processes)?;
        let mut highest_mib: f64 = 0.0;
        for mut process in senders.processes {
            highest_mib = highest_mib.max(peak_memory_mib(process.pid)?);
            process.stop().await;
        }
        self.wait_until_alone().await?;
        after.extend(database_usage(&self.pool).await?);
        after.insert("postgres_cpu_us", self.cpu(&[])?["postgres_cpu_us"]);
        Ok((since(&after, &senders.before), highest_mib))
    }

    /// Waits until only the benchmark is connected. A session adds its work to the database's statistics when it ends,
    /// which is a moment after its client.
    async fn wait_until_alone(&self) -> anyhow::Result<()> {
        let is_alone = async || {
            sqlx::query_scalar(
                "select count(*) = 0 from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend'
                 and application_name <> $1",
            )
            .bind(APPLICATION_NAME)
            .fetch_one(&self.pool)
            .await
            .is_ok_and(|is_alone: bool| is_alone)
        };
        ensure!(
            comes_true(PROGRESS_TIMEOUT, is_alone).await,
            "the server has not ended the sessions of a process that has ended"
        );
        Ok(())
    }

    /// # Panics
    /// If no call arrives for a while. The panic prints the senders' output.
    pub(crate) async fn wait_for_calls(&self, calls: u64) {
        let (mut last, mut last_progress) = (0, Instant::now());
        loop {
            let received = self.calls();
            if received >= calls {
                return;
            }
            if received > last {
                (last, last_progress) = (received, Instant::now());
            }
            assert!(
                last_progress.elapsed() < PROGRESS_TIMEOUT,
                "the API received {received} of {calls} calls, and none in the last {PROGRESS_TIMEOUT:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.api.ledger().summary().calls
    }

    /// Calls a second between two calls, given by their position in the order of arrival.
    pub(crate) fn rate_between(&self, first: u64, last: u64) -> anyhow::Result<f64> {
        let calls = self.api.ledger().calls_after(first - 1);
        let last_call = calls.get(usize::try_from(last - first)?);
        let last_call = last_call.filter(|call| call.seq == last);
        let last_call = last_call.context("the ledger no longer has the measured calls")?;
        let us = last_call.at_us - calls[0].at_us;
        Ok(count(last - first) * 1e6 / count(us))
    }

    /// Stops the API, and checks that each accepted call is recorded, no message was sent twice, and at most `left` messages
    /// are not sent.
    pub(crate) async fn finish(self, left: u64) -> anyhow::Result<()> {
        let summary = self.api.ledger().summary();
        let statement = format!(
            "select count(*) filter (where status = 'message_sent'), count(*) filter (where status <> 'message_sent') from {}",
            self.sender.table()
        );
        let (sent, unsent): (i64, i64) = sqlx::query_as(AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await?;
        let recorded = u64::try_from(sent)?.saturating_sub(self.workload.history);
        drop(self.snapshot);
        self.pool.close().await;
        self.api.stop().await;
        let (accepted, duplicates) = (summary.accepted, summary.duplicates);
        ensure!(
            duplicates == 0,
            "{duplicates} messages were sent more than once"
        );
        ensure!(
            recorded == accepted,
            "the API accepted {accepted} messages, and {recorded} are recorded as sent"
        );
        ensure!(
            u64::try_from(unsent)? <= left,
            "{unsent} messages were not sent"
        );
        Ok(())
    }
}
