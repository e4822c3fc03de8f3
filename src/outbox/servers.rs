//! Connects to one of the database's servers.
//!
//! For each new connection the worker reads the URL's file, the password file and the certificates, looks up the host's
//! name, and tries the hosts in order. So a new password, a new certificate or a failover needs no restart.

mod attributes;
mod hosts;
mod parameters;
mod passfile;
mod tls_files;

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::seq::SliceRandom;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Postgres};

pub(in crate::outbox) use parameters::CONNECT_TIMEOUT;
pub(crate) use parameters::{ParameterError, Parameters};
pub(crate) use tls_files::TlsFileError;

use crate::error_text::database_error_text;
use crate::outbox::ConnectError;
use crate::outbox::errors::is_login_refused;
use crate::secret::{self, SecretSource};
use crate::telemetry::log_throttle::LogThrottle;
use attributes::{SessionAttributes, server_state};
use hosts::{Endpoint, Host};

/// Settings of each direct session, without a pooler.
///
/// - `idle_session_timeout`: a server that ends idle sessions would fail the next statement of a quiet app.
/// - `tcp_keepalives_*`: the server's probes keep firewalls from forgetting a quiet connection, and end the session of a
///   worker whose host has died.
/// - `client_connection_check_interval`: Postgres ends a statement soon after the worker has closed the connection. Only
///   servers on Linux are sure to accept it.
pub(in crate::outbox) const SESSION_GUARDS: &str = "set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; \
    set tcp_keepalives_count = 3; \
    select pg_catalog.set_config('idle_session_timeout', '0', false) \
    where pg_catalog.current_setting('idle_session_timeout', true) is not null; \
    select pg_catalog.set_config('client_connection_check_interval', '1000', false) \
    where pg_catalog.strpos(pg_catalog.version(), 'linux') operator(pg_catalog.>) 0 \
    and pg_catalog.current_setting('client_connection_check_interval', true) is not null";

/// Bounds the warnings of ineffective parameters to one per process.
static WARNED: Once = Once::new();

/// The source of the parameters.
#[derive(Debug)]
pub(crate) enum DatabaseSource {
    /// In a URL, with variables for what it leaves out.
    Url(SecretSource),
    /// In variables alone, as for `psql`.
    Environment,
}

impl From<&SecretString> for DatabaseSource {
    fn from(url: &SecretString) -> Self {
        Self::Url(SecretSource::Value(url.clone()))
    }
}

impl DatabaseSource {
    fn read(&self) -> Result<Parameters, ConnectError> {
        Ok(match self {
            Self::Url(source) => {
                let url = source.read()?;
                Parameters::parse(Some(url.expose_secret()), secret::variable)?
            }
            Self::Environment => Parameters::parse(None, secret::variable)?,
        })
    }

    /// Tells an operator where to put a new password.
    fn advice(&self, parameters: &Parameters) -> String {
        match (self, &parameters.password) {
            (_, None) => {
                let path = parameters.passfile.clone().or_else(passfile::default_path);
                let path = path.map_or_else(|| "~/.pgpass".into(), |path| path.display().to_string());
                format!("put the right one into {path}; the worker reads it for each new connection")
            }
            (Self::Url(SecretSource::File { path, .. }), _) => format!(
                "put the right one into {}; the worker reads it for each new connection",
                path.display()
            ),
            _ => "start the worker again with the right one; with DATABASE_URL_FILE or PGPASSFILE, it would need no restart".into(),
        }
    }
}

/// The state of one host of the URL, for `worker check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostSurvey {
    pub(crate) host: String,
    /// True if the server takes writes; an error says why it can't be used.
    pub(crate) takes_writes: Result<bool, String>,
}

/// The servers of one database.
#[derive(Debug, Clone)]
pub(in crate::outbox) struct Servers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: DatabaseSource,
    /// The parameters of the last successful read.
    last: Mutex<Arc<Parameters>>,
    /// Index of the host of the last successful connection.
    served: AtomicUsize,
    unreadable: LogThrottle,
    refused: LogThrottle,
    passfile_unusable: LogThrottle,
}

impl Servers {
    /// Reads the parameters, and checks what can be checked without a connection.
    pub(in crate::outbox) fn new(source: DatabaseSource) -> Result<Self, ConnectError> {
        let parameters = source.read()?;
        tls_files::check(&parameters)?;
        // A worker that waits for its database calls this function each second.
        WARNED.call_once(|| {
            parameters::warn_of_unknown(&parameters);
            tls_files::warn_of_unchecked(&parameters);
        });
        Ok(Self(Arc::new(Inner {
            source,
            last: Mutex::new(Arc::new(parameters)),
            served: AtomicUsize::new(0),
            unreadable: LogThrottle::default(),
            refused: LogThrottle::default(),
            passfile_unusable: LogThrottle::default(),
        })))
    }

    /// Host and port of the last successful connection; all hosts before the first one.
    pub(in crate::outbox) fn address(&self) -> String {
        let parameters = self.last();
        let served = parameters.hosts.get(self.served_place());
        served.map_or_else(|| parameters.address(), ToString::to_string)
    }

    /// Connects to a server that satisfies `target_session_attrs`.
    ///
    /// # Errors
    /// If no host can be used. The error has the reason for each host.
    pub(in crate::outbox) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.open(async |options| options.connect().await).await
    }

    /// As [`connect`](Self::connect), with another function that opens the connection.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub(in crate::outbox) async fn open<C>(
        &self,
        open: impl AsyncFn(PgConnectOptions) -> Result<C, sqlx::Error>,
    ) -> Result<C, sqlx::Error>
    where
        for<'c> &'c mut C: Executor<'c, Database = Postgres>,
    {
        let parameters = self.parameters();
        let mut failures = Vec::new();
        for &attributes in parameters.session_attributes.rounds() {
            failures.clear();
            for place in self.order(&parameters) {
                let host = &parameters.hosts[place];
                let options = self.options_for(&parameters, host)?;
                let attempt = Box::pin(attempt(&open, options, attributes));
                let attempt = tokio::time::timeout(parameters.connect_timeout, attempt).await;
                match attempt.unwrap_or_else(|_| Err(no_connection(&parameters))) {
                    Ok(connection) => {
                        self.0.served.store(place, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    // Another host would refuse the same login. libpq stops here too.
                    Err(error) if is_login_refused(&error) => {
                        self.log_refused(host, &error);
                        return Err(error);
                    }
                    Err(error) => failures.push((host, error)),
                }
            }
        }
        Err(all_failed(failures))
    }

    /// Queries the state of each host, regardless of `target_session_attrs`. Empty for a single host.
    pub(in crate::outbox) async fn survey(&self) -> Vec<HostSurvey> {
        let parameters = self.last();
        let mut surveys = Vec::new();
        if parameters.hosts.len() < 2 {
            return surveys;
        }
        for host in &parameters.hosts {
            let query_state = async {
                let mut connection = self.options_for(&parameters, host)?.connect().await?;
                let state = server_state(&mut connection).await?;
                connection.close().await.ok();
                Ok::<_, sqlx::Error>(state)
            };
            let state =
                tokio::time::timeout(parameters.connect_timeout, Box::pin(query_state)).await;
            let state = state.unwrap_or_else(|_| Err(no_connection(&parameters)));
            surveys.push(HostSurvey {
                host: host.to_string(),
                takes_writes: state
                    .map(|state| !state.is_read_only)
                    .map_err(|error| database_error_text(&error)),
            });
        }
        surveys
    }

    /// The parameters that the worker does not know, by name.
    pub(in crate::outbox) fn unknown_parameters(&self) -> Vec<String> {
        parameters::unknown_names(&self.last())
    }

    /// The options of the last successful connection.
    pub(in crate::outbox) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let parameters = self.last();
        let host = parameters
            .hosts
            .get(self.served_place())
            .or(parameters.hosts.first());
        let host = host.ok_or_else(|| io::Error::other("the URL names no host"))?;
        self.options_for(&parameters, host)
    }

    fn served_place(&self) -> usize {
        self.0.served.load(Ordering::Relaxed)
    }

    fn last(&self) -> Arc<Parameters> {
        let last = self.0.last.lock();
        Arc::clone(&last)
    }

    /// Reads the parameters again. Falls back to the last successful read, because a file may be incomplete while an operator
    /// replaces it.
    fn parameters(&self) -> Arc<Parameters> {
        let parameters = self.0.source.read();
        match parameters {
            Ok(parameters) => {
                let parameters = Arc::new(parameters);
                let mut last = self.0.last.lock();
                *last = Arc::clone(&parameters);
                parameters
            }
            Err(error) => {
                if self.0.unreadable.admit().is_some() {
                    tracing::warn!(
                        event = "database_url_unreadable",
                        "the worker goes on with the URL that it read before: {error}"
                    );
                }
                self.last()
            }
        }
    }

    /// Indexes of the hosts, in the order of the tries.
    fn order(&self, parameters: &Parameters) -> Vec<usize> {
        let mut places: Vec<usize> = (0..parameters.hosts.len()).collect();
        if parameters.shuffles_hosts {
            places.shuffle(&mut rand::rng());
        } else if parameters.session_attributes.is_of_one_server() {
            let served = self.served_place();
            places.sort_by_key(|place| *place != served);
        }
        places
    }

    fn options_for(
        &self,
        parameters: &Parameters,
        host: &Host,
    ) -> Result<PgConnectOptions, sqlx::Error> {
        // sqlx takes options as text only in a URL. The empty password keeps sqlx from reading a password file, because sqlx
        // logs lines that it can't parse.
        let session =
            utf8_percent_encode(&parameters.options.join(" "), NON_ALPHANUMERIC).to_string();
        let mut options = if session.is_empty() {
            PgConnectOptions::new_without_pgpass()
        } else {
            PgConnectOptions::from_str(&format!(
                "postgres://localhost/?password=&options={session}"
            ))?
        };
        options = options
            .port(host.port)
            .application_name(&parameters.application_name)
            // PgBouncer refuses start-up parameters that it does not know; floats come in binary anyway.
            .extra_float_digits(None)
            .log_statements(tracing::log::LevelFilter::Off)
            .log_slow_statements(tracing::log::LevelFilter::Off, std::time::Duration::ZERO);
        options = match &host.endpoint {
            Endpoint::Tcp(name) => options.host(name).ssl_mode(parameters.ssl_mode),
            Endpoint::Socket(directory) => options.socket(directory).ssl_mode(PgSslMode::Disable),
        };
        if let Some(user) = &parameters.user {
            options = options.username(user);
        }
        if let Some(database) = &parameters.database {
            options = options.database(database);
        }
        if let Some(file) = &parameters.root_certificate {
            options = options.ssl_root_cert(&file.path);
        }
        if let Some(file) = &parameters.client_certificate {
            options = options.ssl_client_cert(&file.path);
        }
        if let Some(file) = &parameters.client_key {
            options = options.ssl_client_key(&file.path);
        }
        if let Some(capacity) = parameters.statement_cache {
            options = options.statement_cache_capacity(capacity);
        }
        let password = parameters
            .password
            .clone()
            .or_else(|| self.filed_password(parameters, host, &options));
        Ok(options.password(
            password
                .as_ref()
                .map_or("", |password| password.expose_secret()),
        ))
    }

    fn filed_password(
        &self,
        parameters: &Parameters,
        host: &Host,
        options: &PgConnectOptions,
    ) -> Option<SecretString> {
        let user = options.get_username();
        let login = passfile::Login {
            host: &host.name,
            port: host.port,
            database: options.get_database().unwrap_or(user),
            user,
        };
        let path = parameters
            .passfile
            .clone()
            .or_else(passfile::default_path)?;
        let is_named = parameters.passfile.is_some();
        passfile::password(&path, is_named, &login, &self.0.passfile_unusable)
    }

    /// Advice for an operator whose login the database refuses. None for any other error.
    pub(in crate::outbox) fn login_advice(&self, error: &sqlx::Error) -> Option<String> {
        let advice = || {
            let advice = self.0.source.advice(&self.last());
            format!("if the password has changed, {advice}")
        };
        is_login_refused(error).then(advice)
    }

    fn log_refused(&self, host: &Host, error: &sqlx::Error) {
        if let Some(advice) = self.login_advice(error)
            && self.0.refused.admit().is_some()
        {
            tracing::warn!(
                event = "database_login_refused",
                host = %host,
                error = database_error_text(error),
                "the database refuses the login: {advice}"
            );
        }
    }
}

/// Opens a connection, and checks the server's state against `target_session_attrs`.
async fn attempt<C>(
    open: &impl AsyncFn(PgConnectOptions) -> Result<C, sqlx::Error>,
    options: PgConnectOptions,
    attributes: SessionAttributes,
) -> Result<C, sqlx::Error>
where
    for<'c> &'c mut C: Executor<'c, Database = Postgres>,
{
    let mut connection = open(options).await?;
    if attributes != SessionAttributes::Any
        && let Some(objection) = attributes.objection(server_state(&mut connection).await?)
    {
        return Err(io::Error::new(io::ErrorKind::HostUnreachable, objection).into());
    }
    Ok(connection)
}

/// A host did not connect in time. The error must not look like a timeout of a statement: `AdaptiveTimeout` would wait
/// longer after one.
fn no_connection(parameters: &Parameters) -> sqlx::Error {
    let timeout = humantime::format_duration(parameters.connect_timeout);
    let why = format!("no connection within {timeout}");
    io::Error::new(io::ErrorKind::HostUnreachable, why).into()
}

fn all_failed(mut failures: Vec<(&Host, sqlx::Error)>) -> sqlx::Error {
    if failures.len() == 1
        && let Some((_, error)) = failures.pop()
    {
        return error;
    }
    let reasons: Vec<String> = failures
        .iter()
        .map(|(host, error)| format!("{host}: {}", database_error_text(error)))
        .collect();
    io::Error::new(io::ErrorKind::HostUnreachable, reasons.join("; ")).into()
}
