//! Arguments that several commands take.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::print::print_as;
use super::usage;
use crate::config::is_name;
use crate::outbox::{DEFAULT_MAX_AGE, Outbox};
use crate::sanitize;
use crate::secret::{self, SecretSource};

const DATABASE: &str = "Database";

/// Each option names its heading. A `next_help_heading` would also apply to the options after a flattened struct.
#[derive(Debug, Args)]
pub(super) struct DatabaseArgs {
    /// The URL of the database, like `postgres://user:password@host:5432/name`, with several hosts if it has standbys.
    /// Set the variable instead of the flag, because other users of the host can read command lines. `PGHOST`, `PGUSER`
    /// and the other variables of libpq replace missing parts, or the whole URL
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", help_heading = DATABASE, value_parser = |url: &str| Ok::<_, Infallible>(SecretString::from(url)))]
    database_url: Option<SecretString>,

    /// A file with the URL of the database. The worker reads the file for each new connection
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", help_heading = DATABASE)]
    database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The URL. None if libpq's variables name the database.
    fn url(&self) -> anyhow::Result<Option<SecretSource>> {
        let url = self
            .database_url
            .as_ref()
            .and_then(|url| secret::given(url.expose_secret()));
        let file = self
            .database_url_file
            .as_deref()
            .and_then(secret::given_path);
        let is_set = |variable| secret::variable(variable).is_some();
        match (url, file) {
            (Some(url), None) => Ok(Some(SecretSource::value(url))),
            (None, Some(file)) => Ok(Some(SecretSource::File(file.into()))),
            (Some(_), Some(_)) => {
                usage("the database is given twice: keep one of DATABASE_URL and DATABASE_URL_FILE")
            }
            (None, None) if is_set("PGHOST") || is_set("PGDATABASE") => Ok(None),
            (None, None) => usage(
                "no database is given: set DATABASE_URL, like postgres://user:password@host:5432/name",
            ),
        }
    }

    pub(super) async fn connect(
        &self,
        max_connections: u32,
        max_age: Duration,
    ) -> anyhow::Result<Outbox> {
        Outbox::connect(self.url()?, max_connections, max_age).await
    }

    /// Fails if the database can't be reached, or its schema is older than this binary needs.
    pub(super) async fn connect_migrated(&self) -> anyhow::Result<Outbox> {
        let outbox = self.connect(1, DEFAULT_MAX_AGE).await?;
        outbox.check_schema().await?;
        Ok(outbox)
    }
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

impl ReadArgs {
    pub(super) async fn show<T: Serialize, E: Into<anyhow::Error>>(
        &self,
        query: impl AsyncFnOnce(&Outbox) -> Result<T, E>,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let outbox = self.database.connect_migrated().await?;
        let found = query(&outbox).await.map_err(Into::into)?;
        outbox.close().await;
        print_as(self.json, &found, text)
    }
}

/// An empty flag counts as not set.
pub(super) fn parse_environment(text: &str) -> Result<String, &'static str> {
    let text = secret::given(text).unwrap_or_default();
    if !text.is_empty() && !is_name(text, "._-", 64) {
        return Err("it is not 1 to 64 letters, digits, dots, dashes or underscores");
    }
    Ok(text.to_owned())
}

const MAX_REASON_CHARS: usize = 500;

pub(super) fn parse_reason(text: &str) -> Result<String, String> {
    let reason = sanitize::text(text, MAX_REASON_CHARS + 1);
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(format!("it is longer than {MAX_REASON_CHARS} characters"));
    }
    Ok(reason)
}

/// The user and host that run this command. The lane keeps them with a pause or a limit.
pub(super) fn operator() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".into());
    sanitize::text(&format!("{user}@{}", host()), sanitize::MAX_NAME_CHARS)
}

pub(super) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| sanitize::text(name.trim(), sanitize::MAX_NAME_CHARS))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".into())
}
