//! A cluster for tests, with a migrated template database that each test's database is copied from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

use super::process::Worker;
use testkit::postgres::{Settings, ThrowawayPostgres};

const TEMPLATE: &str = "migrated";

/// The cluster that tests share. The cluster outlives the Tokio runtime of the first test. After the end of this process,
/// the supervisor removes the cluster.
static SHARED_CLUSTER: OnceCell<Postgres> = OnceCell::const_new();

pub struct Postgres {
    pub cluster: ThrowawayPostgres,
    databases: AtomicU32,
    /// Databases of finished tests. The next test drops them, because hundreds would fill the memory.
    finished: Arc<Mutex<Vec<String>>>,
}

/// The database of a test. After the test, the next one drops it.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    name: String,
    finished: Arc<Mutex<Vec<String>>>,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        self.finished.lock().push(std::mem::take(&mut self.name));
    }
}

impl Postgres {
    /// The cluster that tests share.
    pub async fn shared() -> &'static Self {
        SHARED_CLUSTER.get_or_init(Self::start).await
    }

    /// A cluster for one test, which may crash it.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// A cluster for one test, with settings of the server.
    pub async fn start_with_settings(settings: &[&str]) -> Self {
        Self::start_with(Settings {
            server_settings: settings.iter().map(ToString::to_string).collect(),
            ..Settings::default()
        })
        .await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let cluster = ThrowawayPostgres::start_with(&settings).await;
        let cluster = cluster.expect("a throwaway Postgres");
        let url = cluster.create_database(TEMPLATE).await;
        let migrate = Worker::new(&["migrate"]).env("DATABASE_URL", &url.expect("the template"));
        let migrated = migrate.finish().await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        Self {
            cluster,
            databases: AtomicU32::new(0),
            finished: Arc::default(),
        }
    }

    pub(crate) async fn test_database(&self) -> TestDatabase {
        let finished = Arc::clone(&self.finished);
        let names = std::mem::take(&mut *finished.lock());
        for name in names {
            // A database that can't be dropped now ends with the cluster.
            self.execute(format!("drop database {name} with (force)"))
                .await
                .ok();
        }
        let name = self.create(TEMPLATE).await;
        TestDatabase {
            url: self.cluster.url(&name),
            name,
            finished,
        }
    }

    /// Creates a database with the outbox, and returns its URL.
    pub async fn migrated_database(&self) -> String {
        self.cluster.url(&self.create(TEMPLATE).await)
    }

    /// Creates an empty database, and returns its URL.
    pub async fn empty_database(&self) -> String {
        self.cluster.url(&self.create("template1").await)
    }

    async fn create(&self, template: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("create database {name} template {template}"))
            .await
            .expect("a database");
        name
    }

    async fn execute(&self, statement: String) -> Result<(), sqlx::Error> {
        let mut admin = PgConnection::connect(&self.cluster.admin_url()).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut admin)
            .await?;
        admin.close().await
    }
}

/// Changes a setting of each function, so that the next `worker migrate` replaces all functions.
pub const ALTER_EVERY_FUNCTION: &str = "
    do $$ declare one regprocedure; begin
        for one in select oid from pg_proc where pronamespace = 'signaling'::regnamespace loop
            execute format('alter function %s set jit = on', one);
        end loop;
    end $$";
