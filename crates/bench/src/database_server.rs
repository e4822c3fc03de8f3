//! The PostgreSQL server that all runs share.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use testkit::postgres::{Durability, Settings, ThrowawayPostgres};

/// Tells sessions of the benchmark from those of the senders.
pub(crate) const APPLICATION_NAME: &str = "signaling-bench";

/// The database server of all runs.
#[derive(Debug)]
pub(crate) struct DatabaseServer {
    postgres: ThrowawayPostgres,
    databases: AtomicU32,
}

impl DatabaseServer {
    /// Starts a server whose commits wait for the disk.
    pub(crate) async fn start() -> anyhow::Result<Self> {
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

    /// Creates an empty database, and returns its name and URL.
    pub(crate) async fn create_database(&self) -> anyhow::Result<(String, String)> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = format!("bench_{number}");
        let url = self.postgres.create_database(&database).await?;
        Ok((database, url))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.postgres.pid()
    }

    pub(crate) fn version(&self) -> &str {
        self.postgres.version()
    }

    /// Lines of the server's log that contain one of these texts.
    pub(crate) async fn log_lines_with(&self, texts: &[&str]) -> anyhow::Result<u64> {
        let log = tokio::fs::read(self.postgres.directory().join("server.log")).await?;
        let lines = log.split(|byte| *byte == b'\n').filter(|line| {
            let line = String::from_utf8_lossy(line);
            texts.iter().any(|text| line.contains(text))
        });
        Ok(lines.count() as u64)
    }

    /// Drops a database, and ends the sessions that are connected to it.
    pub(crate) async fn drop_database(&self, database: &str) -> anyhow::Result<()> {
        let mut admin = self.connect_as_admin().await?;
        drop_database(&mut admin, database).await?;
        Ok(admin.close().await?)
    }

    /// Drops the databases of failed runs. Autovacuum would work on them during the next runs.
    pub(crate) async fn drop_databases(&self) -> anyhow::Result<()> {
        let mut admin = self.connect_as_admin().await?;
        let left: Vec<String> =
            sqlx::query_scalar("select datname from pg_database where datname like 'bench\\_%'")
                .fetch_all(&mut admin)
                .await?;
        for database in left {
            drop_database(&mut admin, &database).await?;
        }
        Ok(admin.close().await?)
    }

    async fn connect_as_admin(&self) -> anyhow::Result<PgConnection> {
        Ok(connect_options(&self.postgres.admin_url())?
            .connect()
            .await?)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        Ok(self.postgres.stop().await?)
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

pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?.application_name(APPLICATION_NAME))
}
