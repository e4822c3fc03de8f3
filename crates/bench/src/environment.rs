//! Where one measurement takes place: a database of its own, the simulated API, and the processes that send.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tempfile::NamedTempFile;
use tokio::time::timeout;
use tracing::log::LevelFilter;

use super::api::Api;
use super::child::Child;
use super::hand_written;
use super::meter::{self, Reading};
use crate::dev::postgres::{Durability, Settings, ThrowawayPostgres};
use crate::outbox::Outbox;

/// A limit that no machine reaches.
const NO_LIMIT: u32 = 1_000_000;
/// Rows that are inserted at once.
const ROWS_PER_INSERT: u64 = 500_000;
/// Connections of the measurement itself.
const CONNECTIONS: u32 = 4;
/// What they call themselves.
const OWN_NAME: &str = "signaling-worker bench";
/// How long the server may take to end the sessions of a process that has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The database server of all measurements.
#[derive(Debug)]
pub(super) struct Machine {
    postgres: ThrowawayPostgres,
    databases: AtomicU32,
}

impl Machine {
    /// Starts a server whose commits wait for the disk.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let settings = Settings {
            durability: Durability::Durable,
            server_settings: [
                ("shared_buffers", "256MB"),
                ("max_wal_size", "4GB"),
                ("wal_compression", "off"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            ..Settings::default()
        };
        Ok(Self {
            postgres: ThrowawayPostgres::start_with(&settings).await?,
            databases: AtomicU32::new(0),
        })
    }

    pub(super) fn version(&self) -> &str {
        self.postgres.version()
    }

    /// How many lines of the server's log have one of these texts.
    pub(super) async fn log_lines_with(&self, texts: &[&str]) -> anyhow::Result<u64> {
        let log = tokio::fs::read(self.postgres.directory().join("server.log")).await?;
        let lines = log.split(|byte| *byte == b'\n').filter(|line| {
            let line = String::from_utf8_lossy(line);
            texts.iter().any(|text| line.contains(text))
        });
        Ok(lines.count() as u64)
    }

    /// Drops what measurements that failed have left behind: it would be cleaned up beside the next ones.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        let mut admin = quiet(&self.postgres.admin_url())?.connect().await?;
        let left: Vec<String> =
            sqlx::query_scalar("select datname from pg_database where datname like 'bench\\_%'")
                .fetch_all(&mut admin)
                .await?;
        for database in left {
            drop_database(&mut admin, &database).await?;
        }
        Ok(admin.close().await?)
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        Ok(self.postgres.stop().await?)
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// `worker run`.
    Worker,
    /// The loop that people write by hand.
    HandWritten,
}

/// What is there before the sending begins.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) sender: Sender,
    /// How many processes send.
    pub(super) processes: usize,
    /// Calls a second that the API allows each app.
    pub(super) limit: Option<u32>,
    pub(super) apps: usize,
    /// Messages that are finished.
    pub(super) history: u64,
    /// Messages that wait.
    pub(super) waiting: u64,
    pub(super) payload_bytes: u32,
    /// How long the API takes for an answer.
    pub(super) latency: Duration,
    /// Where valgrind writes how many instructions a worker has executed, if they are to be counted.
    pub(super) valgrind_log: Option<PathBuf>,
}

impl Setting {
    pub(super) fn of(sender: Sender) -> Self {
        Self {
            sender,
            processes: 1,
            limit: None,
            apps: 1,
            history: 0,
            waiting: 0,
            payload_bytes: 50,
            latency: Duration::ZERO,
            valgrind_log: None,
        }
    }
}

/// The place, made as the setting says.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    machine: &'a Machine,
    setting: Setting,
    database: String,
    pub(super) url: String,
    pub(super) pool: PgPool,
    pub(super) api: Api,
}

impl<'a> Stage<'a> {
    /// Makes it.
    pub(super) async fn set(machine: &'a Machine, setting: Setting) -> anyhow::Result<Self> {
        let number = machine.databases.fetch_add(1, Ordering::Relaxed);
        let database = format!("bench_{number}");
        let url = machine.postgres.create_database(&database).await?;
        let options = quiet(&url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await?;
        let api = Api::start(setting.limit, setting.latency).await?;
        let stage = Self {
            machine,
            setting,
            database,
            url,
            pool,
            api,
        };
        stage.fill().await?;
        Ok(stage)
    }

    async fn fill(&self) -> anyhow::Result<()> {
        match self.setting.sender {
            Sender::Worker => {
                let outbox = Outbox::connect(&SecretString::from(self.url.as_str()), 1).await?;
                outbox.migrate(Duration::from_secs(60), |_| ()).await?;
                outbox.close().await;
            }
            Sender::HandWritten => self.execute(hand_written::SCHEMA).await?,
        }
        let Setting {
            history,
            waiting,
            payload_bytes,
            ..
        } = self.setting;
        let app = self.app_of("n");
        self.insert(history, |numbers| match self.setting.sender {
            // A trigger refuses rows that are finished; one who copies a database goes past triggers like that.
            Sender::Worker => format!(
                "begin; set local session_replication_role = replica;
                 insert into signaling.outbox (app, sender, destination, payload, status, attempts, created_at, due_at, sent_at, finished_at, http_status)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('old ' || n, {payload_bytes}, '.'), 'message_sent', 1, at, at, at, at, 200
                 from (select n, now() - interval '1 day' + n * interval '1 ms' as at from {numbers} as n) as old;
                 commit"
            ),
            Sender::HandWritten => format!(
                "insert into hand_written.message (sender, destination, payload, status, sent_at, result)
                 select 'bench', 'user-' || n % 1000, rpad('old ' || n, {payload_bytes}, '.'), 'done', now(), 'message_sent' from {numbers} as n"
            ),
        })
        .await?;
        self.insert(waiting, |numbers| match self.setting.sender {
            Sender::Worker => format!(
                "insert into signaling.outbox (app, sender, destination, payload)
                 select {app}, 'bench', 'user-' || n % 1000, rpad('message ' || n, {payload_bytes}, '.') from {numbers} as n"
            ),
            Sender::HandWritten => format!(
                "insert into hand_written.message (sender, destination, payload)
                 select 'bench', 'user-' || n % 1000, rpad('message ' || n, {payload_bytes}, '.') from {numbers} as n"
            ),
        })
        .await?;
        self.execute("vacuum analyze").await?;
        self.execute("checkpoint").await
    }

    /// From now on each statement of a new session is a line in the server's log.
    pub(super) async fn log_statements(&self) -> anyhow::Result<()> {
        let Self { database, .. } = self;
        self.execute(&format!(
            "alter database {database} set log_statement = 'all'"
        ))
        .await
    }

    /// The app of a row, as SQL.
    fn app_of(&self, number: &str) -> String {
        if self.setting.apps == 1 {
            "'default'".into()
        } else {
            format!("'app-' || {number} % {}", self.setting.apps)
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

    /// Begins to send.
    pub(super) async fn start(&self) -> anyhow::Result<Senders> {
        let mut before = Reading {
            sender_cpu_s: Some(0.0),
            postgres_cpu_s: self.server_cpu_s(),
            ..Reading::default()
        };
        self.until_alone().await?;
        before.read_database(&self.pool).await?;
        let mut settings = vec![
            ("DATABASE_URL", self.url.clone()),
            ("AGORA_BASE_URL", self.api.url.clone()),
            ("WORKER_LOG", "warn".into()),
        ];
        let mut config = None;
        let mut arguments = vec!["run"];
        match self.setting.sender {
            Sender::HandWritten => arguments = vec!["bench", "--as-the-hand-written-loop"],
            Sender::Worker => {
                settings.push(("WORKER_OPS_ADDR", "off".into()));
                let limit = self.setting.limit.unwrap_or(NO_LIMIT);
                settings.push(("WORKER_RATE", limit.to_string()));
                if self.setting.apps == 1 {
                    settings.extend([
                        ("AGORA_APP_ID", "bench".to_owned()),
                        ("AGORA_API_KEY", "bench".into()),
                        ("AGORA_API_SECRET", "bench".into()),
                    ]);
                } else {
                    let file = self.config_file()?;
                    settings.push(("WORKER_CONFIG", file.path().display().to_string()));
                    config = Some(file);
                }
            }
        }
        let mut under = Vec::new();
        if let Some(log) = &self.setting.valgrind_log {
            under.extend(["valgrind", "--tool=cachegrind", "--cache-sim=no"].map(String::from));
            under.push("--cachegrind-out-file=/dev/null".into());
            under.push(format!("--log-file={}", log.display()));
        }
        let processes = (0..self.setting.processes)
            .map(|_| Child::start_under(&under, "sender", &arguments, &settings))
            .collect::<Result<_, _>>()?;
        Ok(Senders {
            before,
            processes,
            _config: config,
        })
    }

    fn config_file(&self) -> anyhow::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        for app in 0..self.setting.apps {
            writeln!(
                file,
                "[apps.app-{app}]\napp_id = \"bench-{app}\"\napi_key = \"bench\"\napi_secret = \"bench\""
            )?;
        }
        file.flush()?;
        Ok(file)
    }

    /// The processor time that was used so far.
    pub(super) fn read_cpu(&self, senders: &Senders) -> anyhow::Result<Reading> {
        let mut sum = Some(0.0);
        for process in &senders.processes {
            let used = meter::cpu_s(process.pid()?);
            sum = sum.and_then(|sum| Some(sum + used?));
        }
        Ok(Reading {
            sender_cpu_s: sum,
            postgres_cpu_s: self.server_cpu_s(),
            ..Reading::default()
        })
    }

    fn server_cpu_s(&self) -> Option<f64> {
        meter::cpu_with_children_s(self.machine.postgres.pid()?)
    }

    /// Ends the sending; what it has cost.
    pub(super) async fn stop(&self, senders: Senders) -> anyhow::Result<Costs> {
        let mut after = self.read_cpu(&senders)?;
        let mut peak_memory_mib: Option<f64> = None;
        for process in &senders.processes {
            let peak = meter::peak_memory_mib(process.pid()?);
            peak_memory_mib = peak_memory_mib.into_iter().chain(peak).reduce(f64::max);
        }
        for process in senders.processes {
            process.stop().await?;
        }
        self.until_alone().await?;
        after.read_database(&self.pool).await?;
        after.postgres_cpu_s = self.server_cpu_s();
        Ok(Costs {
            used: after.since(&senders.before),
            peak_memory_mib,
        })
    }

    /// Waits until nobody else is connected: a session adds what it has done to the database's figures when it ends,
    /// and it ends a moment after its client.
    async fn until_alone(&self) -> anyhow::Result<()> {
        let alone = async {
            loop {
                let others: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity
                     where datname = current_database() and backend_type = 'client backend'
                     and application_name <> $1",
                )
                .bind(OWN_NAME)
                .fetch_one(&self.pool)
                .await?;
                if others == 0 {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, alone)
            .await
            .context("sessions of a process that has ended are still there")?
    }

    /// Whether every message is final.
    pub(super) async fn check_all_are_final(&self) -> anyhow::Result<()> {
        let left: i64 = sqlx::query_scalar(match self.setting.sender {
            Sender::Worker => {
                "select count(*) from signaling.outbox where status not in ('message_sent')"
            }
            Sender::HandWritten => {
                "select count(*) from hand_written.message where status <> 'done'"
            }
        })
        .fetch_one(&self.pool)
        .await?;
        ensure!(left == 0, "{left} messages were not sent");
        Ok(())
    }

    /// The most calls of an app within any second, as the workers took note of them when they started.
    pub(super) async fn fullest_second_by_the_workers(&self) -> anyhow::Result<u64> {
        let fullest: i64 = sqlx::query_scalar(
            "select coalesce(max(signaling.peak_rate(app, '-infinity', 'infinity')), 0)
             from (select distinct app from signaling.outbox) as apps",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(fullest)?)
    }

    /// How many messages are recorded as taken by the API, those of the history left out.
    async fn recorded(&self) -> anyhow::Result<u64> {
        let finished: i64 = sqlx::query_scalar(match self.setting.sender {
            Sender::Worker => "select count(*) from signaling.outbox where status = 'message_sent'",
            Sender::HandWritten => {
                "select count(*) from hand_written.message where status = 'done'"
            }
        })
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(finished)?.saturating_sub(self.setting.history))
    }

    /// Takes it down, and looks whether each call that the API took is recorded, and each message was called once.
    pub(super) async fn clear(self) -> anyhow::Result<()> {
        let summary = self.api.summary().await?;
        let (duplicates, untracked) = (summary.duplicates, summary.untracked_messages);
        let apps = summary.apps.values();
        let taken: u64 = apps.filter_map(|app| app.by_status.get(&200)).sum();
        let recorded = self.recorded().await?;
        self.api.stop().await?;
        self.pool.close().await;
        let mut admin = quiet(&self.machine.postgres.admin_url())?.connect().await?;
        drop_database(&mut admin, &self.database).await?;
        admin.close().await?;
        ensure!(duplicates == 0, "{duplicates} messages were sent twice");
        ensure!(
            untracked == 0,
            "{untracked} messages were too many for the ledger to tell whether they came twice"
        );
        ensure!(
            recorded == taken,
            "{taken} messages were sent, and {recorded} are recorded as sent"
        );
        Ok(())
    }
}

async fn drop_database(admin: &mut PgConnection, database: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "drop database {database} with (force)"
    )))
    .execute(admin)
    .await
    .context("the database can't be dropped")?;
    Ok(())
}

/// What fills a database and drops it takes long, and is no news.
fn quiet(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?
        .application_name(OWN_NAME)
        .log_slow_statements(LevelFilter::Off, Duration::ZERO))
}

/// The processes that send.
#[derive(Debug)]
pub(super) struct Senders {
    before: Reading,
    processes: Vec<Child>,
    _config: Option<NamedTempFile>,
}

/// What sending has cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    pub(super) used: Reading,
    /// The most memory that one of the processes has had.
    pub(super) peak_memory_mib: Option<f64>,
}
