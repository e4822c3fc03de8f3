//! The world of one test: a database, a simulated API, and helpers that insert and wait.

use std::time::Duration;

use serde_json::Value;
use simulator::{Call, Credential, Simulator, SimulatorConfig, Summary};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres as Postgresql, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use super::databases::{Postgres, TestDatabase};
use super::process::{Running, Worker};
use super::rows::{Attempt, Row, peer};
use super::scheduler_stalls::SchedulerStalls;
use super::{PATIENCE, comes_true};

pub const APP_ID: &str = "app-of-the-tests";
pub const API_KEY: &str = "key-of-the-tests";
pub const API_SECRET: &str = "secret-of-the-tests";

const WORKER_BACKENDS: &str = "select pid from pg_stat_activity
    where datname = current_database() and application_name = 'signaling-worker'";

static MACHINE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this process measures. Such tests wait until the returned guard is dropped.
pub async fn whole_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// The result of a statement with one column.
pub trait Scalar:
    Send + Unpin + for<'r> sqlx::Decode<'r, Postgresql> + sqlx::Type<Postgresql>
{
}

impl<T: Send + Unpin + for<'r> sqlx::Decode<'r, Postgresql> + sqlx::Type<Postgresql>> Scalar for T {}

/// A database, and a simulated API that accepts [`API_KEY`] with [`API_SECRET`]. The test is the producer.
pub struct World {
    pub simulator: Simulator,
    pub pool: PgPool,
    pub url: String,
    machine: Option<MutexGuard<'static, ()>>,
    _database: TestDatabase,
}

impl World {
    pub async fn new() -> Self {
        Self::with(SimulatorConfig::default()).await
    }

    /// A world with this simulator, which accepts the usual key if it has no credentials. Tests that share the machine can't
    /// set a limit of calls, because after a stall of more than 10 ms, calls arrive together that started apart.
    pub async fn with(simulator: SimulatorConfig) -> Self {
        Self::on(Postgres::shared().await, simulator).await
    }

    /// A world for a test that measures. Such tests of one process run one after the other.
    pub async fn alone(simulator: SimulatorConfig) -> Self {
        let machine = whole_machine().await;
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
        if simulator.behaviour.credentials.is_empty() {
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

    pub fn command(&self, arguments: &[&str]) -> Worker {
        Worker::on(&self.url, arguments)
    }

    pub async fn run(&self, arguments: &[&str]) -> String {
        self.command(arguments).succeeds().await
    }

    /// `worker run` with short retry delays.
    pub fn worker(&self) -> Worker {
        self.worker_without_app().with_app()
    }

    pub fn worker_without_app(&self) -> Worker {
        self.command(&["run"])
            .env("AGORA_BASE_URL", &self.simulator.base_url())
            .env("WORKER_RETRY_BASE", "50ms")
            .env("WORKER_RETRY_CAP", "200ms")
    }

    /// A new connection to the database, through PgBouncer if the commands use it.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("connected")
    }

    /// Opens the lane of an app that no worker serves.
    pub async fn open_lane(&self, app: &str) {
        self.execute(&format!("select signaling.open_lane('{app}', 100)"))
            .await;
    }

    /// Changes the lane of the app `default` by hand.
    pub async fn set_lane(&self, changes: &str) {
        let update = format!("update signaling.lane set {changes} where app = 'default'");
        self.execute(&update).await;
    }

    /// Changes messages by hand. `changes` may end with a `where`.
    pub async fn set_messages(&self, changes: &str) {
        self.execute(&format!("update signaling.outbox set {changes}"))
            .await;
    }

    /// Ends the leases of all claims.
    pub async fn end_leases(&self) {
        self.set_messages("due_at = now() - interval '1 second'")
            .await;
    }

    /// Changes a setting of the database.
    pub async fn alter_database(&self, change: &str) {
        let name: String = self.ask("select current_database()::text").await;
        self.execute(&format!("alter database {name} {change}"))
            .await;
    }

    /// Registers a live worker of an app without a process, for tests of reports about workers.
    pub async fn pretend_worker(&self, name: &str, version: &str, app: &str) {
        self.execute(&format!(
            "insert into signaling.worker (worker_id, name, version, host, apps, started_at, seen_at)
             values (gen_random_uuid(), '{name}', '{version}', 'a-host', '{{{app}}}', now(), now() + interval '29 seconds')"
        ))
        .await;
    }

    pub async fn pretend_aside(&self, name: &str, app: &str, since: &str, reason: &str) {
        self.execute(&format!(
            "insert into signaling.worker_app (app, worker_id, failed, stepped_aside_at, stepped_aside_reason)
             select '{app}', worker_id, 8, '{since}', '{reason}' from signaling.worker where name = '{name}'"
        ))
        .await;
    }

    pub async fn insert(&self, message: Value) -> i64 {
        self.try_insert(&message)
            .await
            .unwrap_or_else(|error| panic!("{message} is refused: {error}"))
    }

    /// Inserts a failed message of an app.
    pub async fn insert_failed(&self, app: &str) -> i64 {
        let id = self.insert(peer(serde_json::json!({"app": app}))).await;
        let failed = "status = 'failed', attempts = 1, finished_at = now()";
        self.set_messages(&format!("{failed} where id = {id}"))
            .await;
        id
    }

    pub async fn try_insert(&self, message: &Value) -> Result<i64, sqlx::Error> {
        let columns = message.as_object().expect("columns and values").keys();
        let columns = columns.cloned().collect::<Vec<_>>().join(", ");
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
        self.insert_many_of("default", count).await;
    }

    pub async fn insert_many_of(&self, app: &str, count: i32) {
        self.execute(&format!(
            "insert into signaling.outbox (app, sender, destination, payload)
             select '{app}', 'alice', 'user-' || n, 'message ' || n from generate_series(1, {count}) as n"
        ))
        .await;
    }

    /// The database's time in `ms` milliseconds, as text.
    pub async fn time_in(&self, ms: i32) -> String {
        let time = format!("select (clock_timestamp() + {ms} * interval '1 millisecond')::text");
        self.ask(&time).await
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

    pub async fn count(&self, condition: &str) -> i64 {
        let query = format!("select count(*) from signaling.outbox where {condition}");
        self.ask(&query).await
    }

    pub async fn count_attempts(&self, condition: &str) -> i64 {
        self.ask(&format!(
            "select count(*) from signaling.attempt where {condition}"
        ))
        .await
    }

    pub async fn ask<T: Scalar>(&self, statement: &str) -> T {
        let mut connection = self.pool.acquire().await.expect("a connection");
        ask(&mut connection, statement).await
    }

    pub async fn column<T: Scalar>(&self, statement: &str) -> Vec<T> {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The value of an expression over the lane of the app `default`.
    pub async fn lane<T: Scalar>(&self, expression: &str) -> T {
        let query = format!("select {expression} from signaling.lane where app = 'default'");
        self.ask(&query).await
    }

    pub async fn open_transaction(&self, statement: &str) -> Transaction<'static, Postgresql> {
        let mut transaction = self.pool.begin().await.expect("a transaction");
        execute(&mut transaction, statement).await;
        transaction
    }

    /// Inserts a message, and blocks the worker's claim of it until the returned transaction ends.
    pub async fn block_claim(&self, columns: Value) -> (Transaction<'static, Postgresql>, i64) {
        self.until_idle().await;
        let lock = self
            .open_transaction("select from signaling.lane for update")
            .await;
        let id = self.insert(peer(columns)).await;
        self.until_worker_waits_for_lock().await;
        (lock, id)
    }

    pub async fn terminate_workers(&self) -> i64 {
        self.ask(&format!(
            "select count(pg_terminate_backend(pid)) from ({WORKER_BACKENDS}) as worker"
        ))
        .await
    }

    pub async fn execute(&self, statements: &str) {
        let mut connection = self.pool.acquire().await.expect("a connection");
        execute(&mut connection, statements).await;
    }

    /// Waits until a condition holds. After `deadline`, it panics with the state of the world.
    pub async fn until(&self, what: &str, deadline: Duration, holds: impl AsyncFnMut() -> bool) {
        if !comes_true(deadline, holds).await {
            let state = self.state().await;
            panic!("{what}: not true within {deadline:?}\n{state}");
        }
    }

    pub async fn until_true(&self, query: &str) {
        self.until(query, PATIENCE, async || self.ask(query).await)
            .await;
    }

    pub async fn until_lane(&self, condition: &str) {
        self.until_true(&format!(
            "select exists (select from signaling.lane where app = 'default' and {condition})"
        ))
        .await;
    }

    /// Waits until a claim or another statement of a worker waits for a lock.
    pub async fn until_worker_waits_for_lock(&self) {
        let query = format!("select exists ({WORKER_BACKENDS} and wait_event_type = 'Lock')");
        self.until_true(&query).await;
    }

    pub async fn until_count(&self, count: i64, condition: &str) {
        let query = format!("select count(*) = {count} from signaling.outbox where {condition}");
        self.until_true(&query).await;
    }

    pub async fn until_sent(&self, count: i64) {
        self.until_true(&format!(
            "select count(*) >= {count} from signaling.outbox where status = 'message_sent'"
        ))
        .await;
    }

    pub async fn assert_sent_once(&self, count: i64) {
        let sent_once = "status = 'message_sent' and attempts = 1";
        assert_eq!(self.count(sent_once).await, count, "{sent_once}");
    }

    pub fn assert_no_repeats(&self, count: u64) {
        let seen = self.seen();
        assert_eq!((seen.calls, seen.duplicates), (count, 0), "{seen:?}");
    }

    pub async fn deliver(&self, columns: Value) -> (i64, Row) {
        let id = self.insert(peer(columns)).await;
        (id, self.until_final(id).await)
    }

    /// Asserts that a worker sends a message. After the acceptance, the worker claims many messages at a time.
    pub async fn assert_sends(&self) {
        let (id, row) = self.deliver(serde_json::json!({"payload": "first"})).await;
        assert_eq!(row.status, "message_sent", "message {id}: {row:?}");
    }

    pub async fn until_final(&self, id: i64) -> Row {
        let query = format!("select finished_at is not null from signaling.outbox where id = {id}");
        self.until_true(&query).await;
        self.row(id).await
    }

    pub async fn until_all_final(&self) {
        self.until_count(0, "status = 'pending'").await;
    }

    /// Waits until no message is pending, and asserts that `count` messages were sent.
    pub async fn until_all_sent(&self, count: i64) {
        self.until_all_final().await;
        assert_eq!(self.count("status = 'message_sent'").await, count, "sent");
    }

    /// Waits until a worker is idle, so that inserts notify it.
    pub async fn until_idle(&self) {
        self.until_true(
            "select exists (select from signaling.wakeup where wanted_until > clock_timestamp())",
        )
        .await;
    }

    pub fn seen(&self) -> Summary {
        self.simulator.ledger().summary()
    }

    /// The most calls of the default app that arrived in a sliding second.
    pub fn busiest_second(&self) -> u64 {
        self.seen().apps[APP_ID].worst_sliding_second
    }

    /// Asserts that the calls of the default app kept a limit. Calls that a stall of the machine delays arrive together, so
    /// their arrival is judged only without stalls. For the same reason, the simulated API of such a test has no limit.
    pub async fn assert_kept_limit(&self, limit_per_s: u32, stalls: &SchedulerStalls) {
        let peak = "select signaling.peak_rate('default', '-infinity', 'infinity')";
        let started: i64 = self.ask(peak).await;
        assert!(
            started <= i64::from(limit_per_s),
            "{started} calls started in a second"
        );
        let (arrived, longest_stall) = (self.busiest_second(), stalls.take_longest());
        assert!(
            arrived <= u64::from(limit_per_s) || longest_stall > SchedulerStalls::TOLERABLE,
            "{arrived} calls arrived in a second, and the machine's longest stall took {longest_stall:?}"
        );
    }

    pub fn calls_of(&self, payload: &str) -> Vec<Call> {
        self.simulator.ledger().calls_for_payload(payload)
    }

    pub async fn until_accepted(&self, count: u64) {
        let are_accepted = async || self.seen().accepted >= count;
        self.until("messages are accepted", PATIENCE, are_accepted)
            .await;
    }

    pub async fn until_calls(&self, count: u64) {
        let have_arrived = async || self.seen().calls >= count;
        self.until("calls have arrived", PATIENCE, have_arrived)
            .await;
    }

    pub fn set_faults(&self, rules: &[&str]) {
        set_faults(&self.simulator, rules);
    }

    /// Starts the stopped API again, with the same address, ledger and behaviour.
    pub async fn restart_api(&mut self) {
        let config = SimulatorConfig {
            bind: self.simulator.address,
            ledger: self.simulator.ledger().clone(),
            behaviour: self.simulator.behaviour().clone(),
            ..SimulatorConfig::default()
        };
        self.simulator = Simulator::start(config).await.expect("a simulator");
    }

    async fn state(&self) -> String {
        let states: Vec<String> = sqlx::query_scalar(
            "select lane::text from signaling.lane
             union all
             select format('%s %s: %s rows, at most %s attempts, e.g. message %s, error %s', app, state, count(*),
                           max(attempts), min(id), min(error))
             from signaling.delivery group by app, state",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap_or_else(|error| vec![error.to_string()]);
        format!("lanes and rows: {states:#?}\nAPI: {:#?}", self.seen())
    }
}

pub fn set_faults(simulator: &Simulator, rules: &[&str]) {
    let rules = rules.iter().map(|rule| rule.parse().expect("a fault"));
    *simulator.faults() = rules.collect();
}

/// An app in a configuration file: the table `[apps.alias]` with the app ID `alias-id`, the usual key and further lines.
pub fn app_table(alias: &str, lines: &str) -> String {
    format!(
        "[apps.{alias}]\napp_id = \"{alias}-id\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\n{lines}\n"
    )
}

pub fn basic(api_key: &str, api_secret: &str) -> Vec<Credential> {
    vec![Credential::Key {
        api_key: api_key.to_owned(),
        api_secret: api_secret.to_owned(),
    }]
}

pub fn slow_api(latency_ms: u64) -> SimulatorConfig {
    let mut config = SimulatorConfig::default();
    config.behaviour.latency = Duration::from_millis(latency_ms);
    config
}

pub fn api_with_limit(limit: u32) -> SimulatorConfig {
    let mut config = SimulatorConfig::default();
    config.behaviour.limit = Some(limit);
    config
}

/// Starts workers with the names `worker-0`, `worker-1` and so on, and waits until they work.
pub async fn fleet(count: usize, worker: impl Fn() -> Worker) -> Vec<Running> {
    let named = |number| worker().env("WORKER_NAME", &format!("worker-{number}"));
    let fleet: Vec<_> = (0..count).map(|number| named(number).start()).collect();
    for worker in &fleet {
        worker.until_logged("worker_started").await;
    }
    fleet
}

/// Executes statements on a connection.
pub async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The result of a statement with one row and one column, on a connection.
pub async fn ask<T: Scalar>(connection: &mut PgConnection, statement: &str) -> T {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"))
}
