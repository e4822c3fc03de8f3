//! Connects to one of the database's servers.
//!
//! For each new connection the worker reads the URL's file, the password file and the certificates, looks up the host's
//! name, and tries the hosts in order. So a new password, a new certificate or a failover needs no restart.
//!
//! sqlx supports a single host and no `connect_timeout`. sqlx also logs parameters that it can't parse, which may be passwords.
//! So the worker parses the parameters itself, and gives sqlx the checked rest. sqlx reads password files.

mod files;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use form_urlencoded::Serializer;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Executor, PgConnection, Row};

pub(in crate::outbox) use connection_parameters::CONNECT_TIMEOUT;
use connection_parameters::{Host, Parameters};

use crate::config::UsageError;
use crate::error_text::database_error_text;
use crate::outbox::is_login_refused;
use crate::secret::{self, SecretSource};
use crate::telemetry::log_throttle::LogThrottle;
use files::check_files;

pub(crate) struct Servers {
    /// None: libpq's variables name the database, as for `psql`.
    url: Option<SecretSource>,
    /// The parameters of the last successful read.
    last: Mutex<Arc<Parameters>>,
    /// Host and port of the last successful connection.
    address: Mutex<String>,
    unreadable: LogThrottle,
    refused: LogThrottle,
}

impl Servers {
    /// Reads the parameters, and checks them as far as that needs no connection.
    pub(in crate::outbox) fn new(url: Option<SecretSource>) -> anyhow::Result<Self> {
        let parameters = read(url.as_ref())?;
        check_files(&parameters)?;
        Ok(Self {
            url,
            address: Mutex::new(parameters.hosts[0].to_string()),
            last: Mutex::new(Arc::new(parameters)),
            unreadable: LogThrottle::default(),
            refused: LogThrottle::default(),
        })
    }

    pub(in crate::outbox) fn connect_timeout(&self) -> Duration {
        self.last.lock().connect_timeout
    }

    pub(crate) fn address(&self) -> String {
        self.address.lock().clone()
    }

    /// Connects to a server, and returns the options of the connection, too. If the URL names several hosts, the server takes
    /// writes.
    ///
    /// Fails if no host can be used. The error has the reason for each host.
    pub(in crate::outbox) async fn connect(
        &self,
    ) -> Result<(PgConnection, PgConnectOptions), sqlx::Error> {
        let parameters = self.parameters();
        let last_address = self.address();
        let mut hosts: Vec<&Host> = parameters.hosts.iter().collect();
        // The last host comes first. Otherwise an unreachable host before it would delay each new connection.
        hosts.sort_by_key(|host| host.to_string() != last_address);
        let mut failures = Vec::new();
        for host in hosts {
            let options = options(&parameters, host)?;
            let error = match try_host(&parameters, &options).await {
                Ok((connection, true)) => {
                    *self.address.lock() = host.to_string();
                    return Ok((connection, options));
                }
                Ok((_, false)) => unusable("it takes no writes".into()),
                Err(error) => error,
            };
            let (is_refused, error_text) = (is_login_refused(&error), database_error_text(&error));
            if is_refused && self.refused.admit().is_some() {
                tracing::warn!(
                    event = "database_login_refused",
                    host = %host,
                    error = error_text,
                    "the database refuses the login"
                );
            }
            // Another host would refuse the same login. libpq stops here too.
            if is_refused || parameters.hosts.len() == 1 {
                return Err(error);
            }
            failures.push(format!("{host}: {error_text}"));
        }
        Err(unusable(failures.join("; ")))
    }

    /// Describes each host. An error says why the host can't be used.
    pub(crate) async fn host_states(&self) -> Vec<Result<String, String>> {
        let parameters = self.parameters();
        let mut states = Vec::new();
        for host in &parameters.hosts {
            let tried = async { try_host(&parameters, &options(&parameters, host)?).await };
            states.push(match tried.await {
                Ok((_, true)) => Ok(format!("{host} takes writes")),
                Ok((_, false)) => Ok(format!("{host} takes no writes")),
                Err(error) => Err(format!("{host} {}", database_error_text(&error))),
            });
        }
        states
    }

    /// Reads the parameters again. Falls back to the last successful read, because a file may be incomplete while an
    /// operator replaces it.
    fn parameters(&self) -> Arc<Parameters> {
        match read(self.url.as_ref()) {
            Ok(parameters) => *self.last.lock() = Arc::new(parameters),
            Err(error) if self.unreadable.admit().is_some() => tracing::warn!(
                event = "database_url_unreadable",
                "the worker continues with the last URL: {error}"
            ),
            Err(_) => {}
        }
        Arc::clone(&self.last.lock())
    }
}

fn read(url: Option<&SecretSource>) -> anyhow::Result<Parameters> {
    let url = url.map(SecretSource::read).transpose()?;
    let url = url.as_ref().map(ExposeSecret::expose_secret);
    let parsed = Parameters::parse(url, secret::variable);
    Ok(parsed.map_err(|error| UsageError(error.to_string()))?)
}

/// Connects to a host. Returns false if the URL has other hosts, and this one takes no writes.
async fn try_host(
    parameters: &Parameters,
    options: &PgConnectOptions,
) -> Result<(PgConnection, bool), sqlx::Error> {
    let attempt = Box::pin(async {
        let mut connection = options.connect().await?;
        if parameters.hosts.len() == 1 {
            return Ok((connection, true));
        }
        // `show` is safe under any `search_path`, because it calls no function.
        let row = connection.fetch_one("show transaction_read_only").await?;
        let takes_writes = row.try_get::<String, _>(0)? == "off";
        Ok((connection, takes_writes))
    });
    let timeout = parameters.connect_timeout;
    let attempt = tokio::time::timeout(timeout, attempt).await;
    // Not `within`, because `AdaptiveTimeout` would take its error for a slow statement.
    attempt.unwrap_or_else(|_| {
        let timeout = humantime::format_duration(timeout);
        Err(unusable(format!("no connection within {timeout}")))
    })
}

fn options(parameters: &Parameters, host: &Host) -> Result<PgConnectOptions, sqlx::Error> {
    let query = Serializer::new(String::new())
        .append_pair("host", &host.name)
        .append_pair("port", &host.port.to_string())
        .extend_pairs(&parameters.for_sqlx)
        .finish();
    // In a password file, localhost stands for a socket.
    let options = PgConnectOptions::from_str(&format!("postgres://localhost/?{query}"))?;
    let is_socket = host.name.starts_with('/');
    Ok(options
        .ssl_mode(if is_socket {
            PgSslMode::Disable
        } else {
            parameters.ssl_mode
        })
        // PgBouncer refuses start-up parameters that it does not know; floats come in binary anyway.
        .extra_float_digits(None)
        .disable_statement_logging())
}

fn unusable(why: String) -> sqlx::Error {
    io::Error::new(io::ErrorKind::HostUnreachable, why).into()
}
