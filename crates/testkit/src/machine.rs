//! Resources that all tests of a process share: the machine, and a Postgres with a migrated template database.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::postgres::{Settings, ThrowawayPostgres};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::{MutexGuard, OnceCell};

use super::process::Worker;

static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The right to measure, which one test of a process has at a time. A test binary that measures has no other tests:
/// their processes would make calls late.
pub struct WholeMachine {
    _guard: MutexGuard<'static, ()>,
}

impl WholeMachine {
    /// Waits until no other test measures.
    pub async fn take() -> Self {
        Self {
            _guard: MACHINE.lock().await,
        }
    }
}

/// The name of the migrated database that others are copied from.
const TEMPLATE: &str = "migrated";

/// The cluster that tests share. Its runtime may be gone by the time of the next test; the cluster does not mind,
/// and its supervisor removes it after the process.
static SHARED_CLUSTER: OnceCell<Postgres> = OnceCell::const_new();

/// A cluster with databases for tests.
pub struct Postgres {
    pub cluster: ThrowawayPostgres,
    databases: AtomicU32,
    /// Databases whose tests are over. The next test drops them: otherwise hundreds would fill the memory.
    finished: Arc<Mutex<Vec<String>>>,
}

/// The database of one test. Dropping this lets the next test drop the database.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    name: String,
    finished: Arc<Mutex<Vec<String>>>,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.push(std::mem::take(&mut self.name));
    }
}

impl Postgres {
    /// The one that tests share.
    pub async fn shared() -> &'static Self {
        SHARED_CLUSTER.get_or_init(Self::start).await
    }

    /// One of its own, for a test that crashes it.
    pub async fn start() -> Self {
        Self::with_connections(400).await
    }

    /// One of its own that takes so many connections at once.
    pub async fn with_connections(max_connections: u16) -> Self {
        Self::start_with(Settings {
            max_connections,
            ..Settings::default()
        })
        .await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let cluster = ThrowawayPostgres::start_with(&settings)
            .await
            .expect("a throwaway Postgres");
        let url = cluster
            .create_database(TEMPLATE)
            .await
            .expect("the template");
        let migrated = Worker::new(&["migrate"])
            .env("DATABASE_URL", &url)
            .finish()
            .await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        Self {
            cluster,
            databases: AtomicU32::new(0),
            finished: Arc::default(),
        }
    }

    /// A new database with the outbox, until the test is over.
    pub(crate) async fn test_database(&self) -> TestDatabase {
        self.drop_finished().await;
        let name = self.create(&format!(" template {TEMPLATE}")).await;
        TestDatabase {
            url: self.cluster.url(&name),
            name,
            finished: Arc::clone(&self.finished),
        }
    }

    /// A new database with the outbox; its URL.
    pub async fn migrated_database(&self) -> String {
        let name = self.create(&format!(" template {TEMPLATE}")).await;
        self.cluster.url(&name)
    }

    /// A new database without anything; its URL.
    pub async fn empty_database(&self) -> String {
        let name = self.create("").await;
        self.cluster.url(&name)
    }

    async fn create(&self, template: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("create database {name}{template}"))
            .await
            .expect("a database");
        name
    }

    async fn drop_finished(&self) {
        let finished =
            std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        for name in finished {
            // The cluster's end removes a database that can't be dropped here.
            self.execute(format!("drop database {name} with (force)"))
                .await
                .ok();
        }
    }

    async fn execute(&self, statement: String) -> Result<(), sqlx::Error> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url()).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut admin)
            .await?;
        admin.close().await
    }
}
