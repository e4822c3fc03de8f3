//! Connects to one of the database's servers.
//!
//! For each new connection the worker reads the URL's file, the password file and the certificates, looks up the host's
//! name, and tries the hosts in order. So a new password, a new certificate or a failover needs no restart.
//!
//! sqlx supports a single host, and none of `target_session_attrs`, `connect_timeout` and `load_balance_hosts`. It also logs
//! values that it can't parse, which may be passwords. So the worker parses the parameters itself, and gives sqlx the
//! checked rest.

mod attributes;
mod hosts;
mod parameters;
mod passfile;
mod tls_files;

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use form_urlencoded::Serializer;
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Postgres, Row};

pub(in crate::outbox) use parameters::CONNECT_TIMEOUT;
pub(crate) use parameters::{ParameterError, Parameters};

use crate::error_text::database_error_text;
use crate::outbox::ConnectError;
use crate::outbox::errors::is_login_refused;
use crate::outbox::pool::within;
use crate::secret::{self, SecretSource};
use crate::telemetry::log_throttle::LogThrottle;
use attributes::Requirement;
use hosts::Host;

/// A URL that sqlx parses. The empty password keeps sqlx from reading a password file, because sqlx logs lines that it can't
/// parse.
const SQLX_URL: &str = "postgres://localhost/?password=";

/// The source of the parameters.
#[derive(Debug)]
pub(crate) enum DatabaseSource {
    /// A URL, and variables for parameters that the URL leaves out.
    Url(SecretSource),
    /// Variables alone, as for `psql`.
    Environment,
}

impl From<&SecretString> for DatabaseSource {
    fn from(url: &SecretString) -> Self {
        Self::Url(SecretSource::Value(url.clone()))
    }
}

impl DatabaseSource {
    fn read(&self) -> Result<Parameters, ConnectError> {
        let url = match self {
            Self::Url(source) => Some(source.read()?),
            Self::Environment => None,
        };
        let url = url.as_ref().map(ExposeSecret::expose_secret);
        Ok(Parameters::parse(url, secret::variable)?)
    }

    /// Where an operator puts a new password.
    fn advice(&self, parameters: &Parameters) -> String {
        let file = match (self, &parameters.password) {
            (_, None) => passfile::path(parameters.passfile.as_deref()),
            (Self::Url(SecretSource::File(path)), _) => path.clone(),
            (Self::Url(SecretSource::Value(_)) | Self::Environment, _) => {
                return "start the worker again with the right one; with DATABASE_URL_FILE or PGPASSFILE, it would need no restart".into();
            }
        };
        format!(
            "put the right one into {}; the worker reads it for each new connection",
            file.display()
        )
    }
}

/// The state of one host of the URL, for `worker check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostSurvey {
    pub(crate) host: String,
    /// True if the server takes writes; an error says why it can't be used.
    pub(crate) takes_writes: Result<bool, String>,
}

pub(in crate::outbox) struct Servers {
    source: DatabaseSource,
    /// The parameters of the last successful read.
    last: Mutex<Arc<Parameters>>,
    /// Index of the host of the last successful connection.
    last_host: AtomicUsize,
    unreadable: LogThrottle,
    refused: LogThrottle,
    passfile_unusable: LogThrottle,
}

impl Servers {
    /// Reads the parameters, and checks them as far as that needs no connection.
    pub(in crate::outbox) fn new(source: DatabaseSource) -> Result<Self, ConnectError> {
        // A worker that waits for its database calls this function each second.
        static WARNED: Once = Once::new();
        let parameters = source.read()?;
        tls_files::check(&parameters)?;
        WARNED.call_once(|| {
            for name in &parameters.unknown {
                tracing::warn!(
                    event = "database_parameter_ignored",
                    "DATABASE_URL has an unknown parameter, which has no effect: {name}"
                );
            }
            tls_files::warn_of_unchecked(&parameters);
        });
        Ok(Self {
            source,
            last: Mutex::new(Arc::new(parameters)),
            last_host: AtomicUsize::new(0),
            unreadable: LogThrottle::default(),
            refused: LogThrottle::default(),
            passfile_unusable: LogThrottle::default(),
        })
    }

    /// Host and port of the last successful connection.
    pub(in crate::outbox) fn address(&self) -> String {
        let parameters = self.last();
        self.last_host(&parameters).to_string()
    }

    /// Connects to a server that meets `target_session_attrs`.
    ///
    /// # Errors
    /// If no host can be used. The error has the reason for each host.
    pub(in crate::outbox) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.open(async |options| options.connect().await).await
    }

    /// As [`connect`](Self::connect), with another function that opens the connection.
    pub(in crate::outbox) async fn open<C>(
        &self,
        open: impl AsyncFn(PgConnectOptions) -> Result<C, sqlx::Error>,
    ) -> Result<C, sqlx::Error>
    where
        for<'c> &'c mut C: Executor<'c, Database = Postgres>,
    {
        let parameters = self.parameters();
        let mut failures = Vec::new();
        for &requirement in parameters.requirements {
            failures.clear();
            for index in self.order(&parameters) {
                let host = &parameters.hosts[index];
                let options = self.options_for(&parameters, host)?;
                let attempt = Box::pin(async {
                    let mut connection = open(options).await?;
                    requirement.check(&mut connection).await?;
                    Ok(connection)
                });
                let timeout = parameters.connect_timeout;
                let attempt = tokio::time::timeout(timeout, attempt).await;
                // Not `within`, because `AdaptiveTimeout` would take its error for a slow statement.
                let timed_out = |_| {
                    let timeout = humantime::format_duration(timeout);
                    Err(unusable(format!("no connection within {timeout}")))
                };
                match attempt.unwrap_or_else(timed_out) {
                    Ok(connection) => {
                        self.last_host.store(index, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    // Another host would refuse the same login. libpq stops here too.
                    Err(error) if is_login_refused(&error) => {
                        let advice = self.login_advice(&error).unwrap_or_default();
                        if self.refused.admit().is_some() {
                            tracing::warn!(
                                event = "database_login_refused",
                                host = %host,
                                error = database_error_text(&error),
                                "the database refuses the login: {advice}"
                            );
                        }
                        return Err(error);
                    }
                    Err(error) => failures.push((host, error)),
                }
            }
        }
        if failures.len() == 1
            && let Some((_, error)) = failures.pop()
        {
            return Err(error);
        }
        let reason = |(host, error)| format!("{host}: {}", database_error_text(&error));
        let reasons: Vec<String> = failures.into_iter().map(reason).collect();
        Err(unusable(reasons.join("; ")))
    }

    /// Queries the state of each host, regardless of `target_session_attrs`. Empty for a single host.
    pub(in crate::outbox) async fn survey(&self) -> Vec<HostSurvey> {
        let parameters = self.last();
        let mut surveys = Vec::new();
        if parameters.hosts.len() < 2 {
            return surveys;
        }
        for host in &parameters.hosts {
            let takes_writes = async {
                let mut connection = self.options_for(&parameters, host)?.connect().await?;
                let row = connection.fetch_one("show transaction_read_only").await?;
                connection.close().await.ok();
                Ok(row.try_get::<String, _>(0)? == "off")
            };
            let takes_writes = within(parameters.connect_timeout, Box::pin(takes_writes)).await;
            surveys.push(HostSurvey {
                host: host.to_string(),
                takes_writes: takes_writes.map_err(|error| database_error_text(&error)),
            });
        }
        surveys
    }

    /// The parameters that have no effect, by name.
    pub(in crate::outbox) fn unknown_parameters(&self) -> Vec<String> {
        self.last().unknown.clone()
    }

    /// The options of the last successful connection.
    pub(in crate::outbox) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let parameters = self.last();
        self.options_for(&parameters, self.last_host(&parameters))
    }

    fn last(&self) -> Arc<Parameters> {
        Arc::clone(&self.last.lock())
    }

    /// The host of the last successful connection, unless a new URL has fewer hosts.
    fn last_host<'p>(&self, parameters: &'p Parameters) -> &'p Host {
        let hosts = &parameters.hosts;
        let last = hosts.get(self.last_host.load(Ordering::Relaxed));
        last.unwrap_or(&hosts[0])
    }

    /// Reads the parameters again. Falls back to the last successful read, because a file may be incomplete while an
    /// operator replaces it.
    fn parameters(&self) -> Arc<Parameters> {
        match self.source.read() {
            Ok(parameters) => {
                *self.last.lock() = Arc::new(parameters);
            }
            Err(error) => {
                if self.unreadable.admit().is_some() {
                    tracing::warn!(
                        event = "database_url_unreadable",
                        "the worker continues with the last URL: {error}"
                    );
                }
            }
        }
        self.last()
    }

    /// Indexes of the hosts, in the order of the tries. If a single server can meet the requirement, the last host comes
    /// first, because an unreachable host before it would delay each new connection.
    fn order(&self, parameters: &Parameters) -> Vec<usize> {
        let mut order: Vec<usize> = (0..parameters.hosts.len()).collect();
        if parameters.shuffles_hosts {
            order.shuffle(&mut rand::rng());
        } else if let [Requirement::ReadWrite | Requirement::Primary] = parameters.requirements {
            let last_host = self.last_host.load(Ordering::Relaxed);
            order.sort_by_key(|index| *index != last_host);
        }
        order
    }

    fn options_for(
        &self,
        parameters: &Parameters,
        host: &Host,
    ) -> Result<PgConnectOptions, sqlx::Error> {
        let for_sqlx = parameters.for_sqlx.iter();
        let query = Serializer::for_suffix(SQLX_URL.to_owned(), 0)
            .append_pair("host", &host.name)
            .extend_pairs(for_sqlx.map(|(name, value)| (name, &value.text)))
            .finish();
        let mut options = PgConnectOptions::from_str(&query)?
            .port(host.port)
            .ssl_mode(parameters.ssl_mode)
            // PgBouncer refuses start-up parameters that it does not know; floats come in binary anyway.
            .extra_float_digits(None)
            .disable_statement_logging();
        if host.is_socket() {
            options = options.ssl_mode(PgSslMode::Disable);
        }
        let in_file = || {
            let user = options.get_username();
            let database = options.get_database().unwrap_or(user);
            // In a password file, localhost stands for a socket.
            let name = if host.is_socket() {
                "localhost"
            } else {
                &host.name
            };
            let login = [name, &host.port.to_string(), database, user];
            passfile::password(
                parameters.passfile.as_deref(),
                login,
                &self.passfile_unusable,
            )
        };
        let password = parameters.password.clone().or_else(in_file);
        Ok(options.password(password.as_ref().map_or("", ExposeSecret::expose_secret)))
    }

    /// Advice for an operator whose login the database refuses. None for any other error.
    pub(in crate::outbox) fn login_advice(&self, error: &sqlx::Error) -> Option<String> {
        let advice = || {
            let advice = self.source.advice(&self.last());
            format!("if the password has changed, {advice}")
        };
        is_login_refused(error).then(advice)
    }
}

/// The error for a host that can't be used.
fn unusable(why: String) -> sqlx::Error {
    io::Error::new(io::ErrorKind::HostUnreachable, why).into()
}
