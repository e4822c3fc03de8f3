//! The world of one test: a database, a simulated API, and helpers that insert and wait.

use std::time::Duration;

use serde_json::Value;
use simulator::{ApiKey, Behaviour, Call, Credentials, Simulator, SimulatorConfig, Summary};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::{Mutex, MutexGuard};

use super::databases::{Postgres, TestDatabase};
use super::process::{Running, Worker};
use super::rows::{Attempt, Row, peer};
use super::{PATIENCE, comes_true};

pub const APP_ID: &str = "app-of-the-tests";
pub const API_KEY: &str = "key-of-the-tests";
pub const API_SECRET: &str = "secret-of-the-tests";

static MACHINE: Mutex<()> = Mutex::const_new(());

/// The right to measure. One test of a process has it at a time.
pub struct WholeMachine(#[expect(dead_code)] MutexGuard<'static, ()>);

impl WholeMachine {
    /// Waits until no other test measures.
    pub async fn take() -> Self {
        Self(MACHINE.lock().await)
    }
}

/// A database, and a simulated API that accepts [`API_KEY`] with [`API_SECRET`]. The test is the producer.
pub struct World {
    pub simulator: Simulator,
    pub pool: PgPool,
    pub url: String,
    machine: Option<WholeMachine>,
    _database: TestDatabase,
}

impl World {
    pub async fn new() -> Self {
        Self::with(SimulatorConfig::default()).await
    }

    /// A world with this simulator. Without other credentials, the simulator accepts the usual key.
    pub async fn with(mut simulator: SimulatorConfig) -> Self {
        // Tests that share the machine can't keep the default limit: after a stall of more than 10 ms, calls arrive
        // together that started apart.
        let limit = &mut simulator.behaviour.limit;
        *limit = limit.filter(|_| *limit != Behaviour::default().limit);
        Self::on(Postgres::shared().await, simulator).await
    }

    /// A world for a test that measures: no other test of the process runs.
    pub async fn alone(simulator: SimulatorConfig) -> Self {
        let machine = WholeMachine::take().await;
        let mut world = Self::on(Postgres::shared().await, simulator).await;
        world.machine = Some(machine);
        world
    }

    pub async fn on(postgres: &Postgres, mut simulator: SimulatorConfig) -> Self {
        let database = postgres.test_database().await;
        let url = database.url.clone();
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect(&url)
            .await
            .expect("connected");
        if simulator.behaviour.credentials == Credentials::default() {
            simulator.behaviour.credentials = basic(API_KEY, API_SECRET);
        }
        Self {
            simulator: Simulator::start(simulator).await.expect("a simulator"),
            pool,
            url,
            machine: None,
            _database: database,
        }
    }

    /// A worker command that needs only the database.
    pub fn command(&self, arguments: &[&str]) -> Worker {
        Worker::new(arguments).env("DATABASE_URL", &self.url)
    }

    /// `worker run` with short retry delays.
    pub fn worker(&self) -> Worker {
        self.worker_without_app()
            .env("AGORA_APP_ID", APP_ID)
            .env("AGORA_API_KEY", API_KEY)
            .env("AGORA_API_SECRET", API_SECRET)
    }

    /// `worker run` without app ID and credentials.
    pub fn worker_without_app(&self) -> Worker {
        self.command(&["run"])
            .env("AGORA_BASE_URL", &self.simulator.base_url())
            .env("WORKER_RETRY_BASE", "50ms")
            .env("WORKER_RETRY_CAP", "200ms")
    }

    /// Registers a live worker of an app without a process, for tests of reports about workers.
    pub async fn pretend_worker(&self, name: &str, version: &str, app: &str) {
        self.execute(&format!(
            "insert into signaling.worker (worker_id, name, version, host, apps, started_at, seen_at)
             values (gen_random_uuid(), '{name}', '{version}', 'a-host', '{{{app}}}', now(), now() + interval '29 seconds')"
        ))
        .await;
    }

    /// Records that a worker stepped aside from an app.
    pub async fn pretend_aside(&self, name: &str, app: &str, since: &str, reason: &str) {
        self.execute(&format!(
            "insert into signaling.worker_app (app, worker_id, failed, stepped_aside_at, stepped_aside_reason)
             select '{app}', worker_id, 8, '{since}', '{reason}' from signaling.worker where name = '{name}'"
        ))
        .await;
    }

    /// Inserts a message, and returns its id.
    pub async fn insert(&self, message: Value) -> i64 {
        self.try_insert(&message)
            .await
            .unwrap_or_else(|error| panic!("{message} is refused: {error}"))
    }

    /// Inserts a message, and returns the database's error if it refuses the message.
    pub async fn try_insert(&self, message: &Value) -> Result<i64, sqlx::Error> {
        let columns = message
            .as_object()
            .expect("columns and values")
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let statement = format!(
            "insert into signaling.outbox ({columns})
             select {columns} from jsonb_populate_record(null::signaling.outbox, $1::jsonb) returning id"
        );
        sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(message.to_string())
            .fetch_one(&self.pool)
            .await
    }

    /// Inserts different peer messages in one statement.
    pub async fn insert_many(&self, count: i32) {
        sqlx::query(
            "insert into signaling.outbox (sender, destination, payload)
             select 'alice', 'user-' || n, 'message ' || n from generate_series(1, $1) as n",
        )
        .bind(count)
        .execute(&self.pool)
        .await
        .expect("inserted");
    }

    /// The database's time in `ms` milliseconds, as text.
    pub async fn time_in(&self, ms: i32) -> String {
        sqlx::query_scalar("select (clock_timestamp() + $1 * interval '1 millisecond')::text")
            .bind(ms)
            .fetch_one(&self.pool)
            .await
            .expect("a time")
    }

    pub async fn row(&self, id: i64) -> Row {
        sqlx::query_as("select * from signaling.outbox where id = $1")
            .bind(id)
            .fetch_one(&self.pool)
            .await
            .expect("a row")
    }

    pub async fn attempts(&self, id: i64) -> Vec<Attempt> {
        sqlx::query_as("select * from signaling.attempt where message_id = $1 order by id")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .expect("attempts")
    }

    /// The number of messages that satisfy an SQL condition.
    pub async fn count(&self, condition: &str) -> i64 {
        let statement = format!("select count(*) from signaling.outbox where {condition}");
        sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await
            .expect("a count")
    }

    /// The result of a statement with one row and one column.
    pub async fn ask<T>(&self, statement: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    pub async fn execute(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Waits until a condition holds. After `deadline`, it panics with the state of the world.
    pub async fn until(&self, what: &str, deadline: Duration, holds: impl AsyncFnMut() -> bool) {
        if !comes_true(deadline, holds).await {
            let state = self.state().await;
            panic!("{what}: not so within {deadline:?}\n{state}");
        }
    }

    /// Waits until a message is final, and returns its row.
    pub async fn until_final(&self, id: i64) -> Row {
        self.until(&format!("message {id} is final"), PATIENCE, async || {
            self.row(id).await.finished_at.is_some()
        })
        .await;
        self.row(id).await
    }

    /// Waits until no message is pending.
    pub async fn until_all_final(&self) {
        self.until("every row is final", PATIENCE, async || {
            self.count("status = 'pending'").await == 0
        })
        .await;
    }

    /// Waits until a worker is idle, so that inserts notify it.
    pub async fn until_idle(&self) {
        self.until("a worker is idle", PATIENCE, async || {
            self.ask(
                "select exists (select from signaling.wakeup where wanted_until > clock_timestamp())",
            )
            .await
        })
        .await;
    }

    /// The totals of the API's ledger.
    pub fn seen(&self) -> Summary {
        self.simulator.ledger().summary()
    }

    /// The API's calls with this payload.
    pub fn calls_of(&self, payload: &str) -> Vec<Call> {
        self.simulator.ledger().calls_for_payload(payload)
    }

    /// Waits until the API has accepted this number of messages.
    pub async fn until_accepted(&self, count: u64) {
        self.simulator
            .ledger()
            .wait_for_accepted(count, PATIENCE)
            .await
            .expect("accepted");
    }

    /// Replaces the API's fault rules, given as text.
    pub fn set_faults(&self, rules: &[&str]) {
        let rules = rules
            .iter()
            .map(|rule| rule.parse().expect("a fault"))
            .collect();
        self.simulator.set_faults(rules).expect("faults");
    }

    pub fn set_credentials(&self, credentials: Credentials) {
        self.change(|behaviour| behaviour.credentials = credentials);
    }

    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.simulator.config();
        change(&mut behaviour);
        self.simulator.set_config(behaviour).expect("a behaviour");
    }

    async fn state(&self) -> String {
        let rows: Vec<String> = sqlx::query_scalar(
            "select format('%s %s: %s rows, at most %s attempts, e.g. message %s, error %s', app, state, count(*),
                           max(attempts), min(id), min(error))
             from signaling.delivery group by app, state order by 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap_or_else(|error| vec![error.to_string()]);
        let lanes: Vec<String> = sqlx::query_scalar("select lane::text from signaling.lane")
            .fetch_all(&self.pool)
            .await
            .unwrap_or_default();
        format!(
            "rows: {rows:#?}\nlanes: {lanes:#?}\nAPI: {:#?}",
            self.seen()
        )
    }
}

/// An API key and its secret as the only accepted credentials.
pub fn basic(api_key: &str, api_secret: &str) -> Credentials {
    Credentials {
        basic: vec![ApiKey {
            api_key: api_key.to_owned(),
            api_secret: api_secret.to_owned(),
        }],
        ..Credentials::default()
    }
}

/// A simulator with this latency.
pub fn slow_api(latency_ms: u64) -> SimulatorConfig {
    let mut config = SimulatorConfig::default();
    config.behaviour.latency_ms = latency_ms;
    config
}

/// A simulator with this limit of calls a second.
pub fn api_with_limit(limit: u32) -> SimulatorConfig {
    let mut config = SimulatorConfig::default();
    config.behaviour.limit = Some(limit);
    config
}

/// Starts workers with the names `worker-0`, `worker-1` and so on, and waits until they work.
pub async fn fleet(count: usize, worker: impl Fn() -> Worker) -> Vec<Running> {
    let fleet: Vec<_> = (0..count)
        .map(|number| {
            worker()
                .env("WORKER_NAME", &format!("worker-{number}"))
                .start()
        })
        .collect();
    for worker in &fleet {
        worker.until_logged("worker_started").await;
    }
    fleet
}

/// Sends a first message. After an acceptance, a worker claims many messages at a time.
pub async fn warm_up(world: &World) {
    let id = world
        .insert(peer(serde_json::json!({"payload": "warm-up"})))
        .await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
}
