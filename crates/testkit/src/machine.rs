//! What all tests of the process share: the machine, and a Postgres with a migrated database to copy.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::postgres::{Settings, ThrowawayPostgres};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::process::Worker;

static MACHINE: Mutex<()> = Mutex::const_new(());

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
        }
    }

    /// A new database with the outbox; its URL.
    pub async fn migrated_database(&self) -> String {
        self.database(&format!(" template {TEMPLATE}")).await
    }

    /// A new database without anything; its URL.
    pub async fn empty_database(&self) -> String {
        self.database("").await
    }

    async fn database(&self, template: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&self.cluster.admin_url())
            .await
            .expect("connected");
        sqlx::query(AssertSqlSafe(format!("create database {name}{template}")))
            .execute(&mut admin)
            .await
            .expect("a database");
        admin.close().await.expect("closed");
        self.cluster.url(&name)
    }
}
