//! Connects to one of the database's servers.
//!
//! For each new connection the worker reads the URL's file, the password file and the certificates, looks up the host's
//! name, and tries the hosts in order. So a new password, a new certificate or a failover needs no restart.
//!
//! sqlx supports a single host and no `connect_timeout`. It also logs values that it can't parse, which may be passwords. So
//! the worker parses the parameters itself, and gives sqlx the checked rest.

mod hosts;
mod parameters;
mod passfile;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use form_urlencoded::Serializer;
use parking_lot::Mutex;
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
            _ => {
                return "start the worker again with the right one; with DATABASE_URL_FILE or PGPASSFILE, it would need no restart".into();
            }
        };
        format!(
            "put the right one into {}; the worker reads it for each new connection",
            file.display()
        )
    }
}

/// A host of the URL. True if the server takes writes; an error says why it can't be used.
pub(crate) type HostState = (String, Result<bool, String>);

pub(crate) struct Servers {
    source: DatabaseSource,
    /// The parameters of the last successful read.
    last: Mutex<Arc<Parameters>>,
    /// Index of the host of the last successful connection.
    last_host: AtomicUsize,
    unreadable: LogThrottle,
    refused: LogThrottle,
}

impl Servers {
    /// Reads the parameters, and checks them as far as that needs no connection.
    pub(in crate::outbox) fn new(source: DatabaseSource) -> Result<Self, ConnectError> {
        let parameters = source.read()?;
        parameters.check_tls_files()?;
        Ok(Self {
            source,
            last: Mutex::new(Arc::new(parameters)),
            last_host: AtomicUsize::new(0),
            unreadable: LogThrottle::default(),
            refused: LogThrottle::default(),
        })
    }

    /// Host and port of the last successful connection.
    pub(crate) fn address(&self) -> String {
        let parameters = self.last();
        self.last_host(&parameters).to_string()
    }

    /// Connects to a server. Of several hosts, to one that takes writes.
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
        for index in self.order(&parameters) {
            let host = &parameters.hosts[index];
            let attempt = Box::pin(async {
                let mut connection = open(options(&parameters, host)?).await?;
                if parameters.hosts.len() > 1 && !takes_writes(&mut connection).await? {
                    return Err(unusable("it takes no writes".into()));
                }
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
                Err(error) => {
                    // Another host would refuse the same login. libpq stops here too.
                    if let Some(advice) = self.login_advice(&error) {
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
                    failures.push((host, error));
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

    /// Queries the state of each host. Empty for a single host.
    pub(crate) async fn host_states(&self) -> Vec<HostState> {
        let parameters = self.last();
        let mut states = Vec::new();
        if parameters.hosts.len() < 2 {
            return states;
        }
        for host in &parameters.hosts {
            let state = async {
                let mut connection = options(&parameters, host)?.connect().await?;
                let state = takes_writes(&mut connection).await;
                connection.close().await.ok();
                state
            };
            let state = within(parameters.connect_timeout, Box::pin(state)).await;
            let state = state.map_err(|error| database_error_text(&error));
            states.push((host.to_string(), state));
        }
        states
    }

    pub(in crate::outbox) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let parameters = self.last();
        options(&parameters, self.last_host(&parameters))
    }

    fn last(&self) -> Arc<Parameters> {
        Arc::clone(&self.last.lock())
    }

    /// The host of the last successful connection, unless a new URL has fewer hosts.
    fn last_host<'p>(&self, parameters: &'p Parameters) -> &'p Host {
        &parameters.hosts[self.order(parameters)[0]]
    }

    /// Reads the parameters again. Falls back to the last successful read, because a file may be incomplete while an
    /// operator replaces it.
    fn parameters(&self) -> Arc<Parameters> {
        match self.source.read() {
            Ok(parameters) => *self.last.lock() = Arc::new(parameters),
            Err(error) if self.unreadable.admit().is_some() => tracing::warn!(
                event = "database_url_unreadable",
                "the worker continues with the last URL: {error}"
            ),
            Err(_) => {}
        }
        self.last()
    }

    /// Indexes of the hosts, in the order of the tries. The last host comes first, because an unreachable host before it
    /// would delay each new connection.
    fn order(&self, parameters: &Parameters) -> Vec<usize> {
        let mut order: Vec<usize> = (0..parameters.hosts.len()).collect();
        let last_host = self.last_host.load(Ordering::Relaxed);
        order.sort_by_key(|index| *index != last_host);
        order
    }

    pub(in crate::outbox) fn login_advice(&self, error: &sqlx::Error) -> Option<String> {
        let advice = || {
            let advice = self.source.advice(&self.last());
            format!("if the password has changed, {advice}")
        };
        is_login_refused(error).then(advice)
    }
}

fn options(parameters: &Parameters, host: &Host) -> Result<PgConnectOptions, sqlx::Error> {
    let query = Serializer::for_suffix(SQLX_URL.to_owned(), 0)
        .append_pair("host", &host.name)
        .extend_pairs(&parameters.for_sqlx)
        .finish();
    let options = PgConnectOptions::from_str(&query)?
        .port(host.port)
        .ssl_mode(if host.is_socket() {
            PgSslMode::Disable
        } else {
            parameters.ssl_mode
        })
        // PgBouncer refuses start-up parameters that it does not know; floats come in binary anyway.
        .extra_float_digits(None)
        .disable_statement_logging();
    if let Some(password) = &parameters.password {
        return Ok(options.password(password.expose_secret()));
    }
    let user = options.get_username();
    let login = [
        // In a password file, localhost stands for a socket.
        if host.is_socket() {
            "localhost"
        } else {
            &host.name
        },
        &host.port.to_string(),
        options.get_database().unwrap_or(user),
        user,
    ];
    let password = passfile::password(parameters.passfile.as_deref(), login)?;
    Ok(options.password(&password.unwrap_or_default()))
}

/// `show` is safe under any `search_path`, because it calls no function.
async fn takes_writes<'c>(
    connection: impl Executor<'c, Database = Postgres>,
) -> Result<bool, sqlx::Error> {
    let row = connection.fetch_one("show transaction_read_only").await?;
    Ok(row.try_get::<String, _>(0)? == "off")
}

/// The error for a host that can't be used.
fn unusable(why: String) -> sqlx::Error {
    io::Error::new(io::ErrorKind::HostUnreachable, why).into()
}
