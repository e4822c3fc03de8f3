//! Parses libpq's connection parameters from a URL, and from `PG*` variables for parameters that the URL leaves out.
//!
//! The worker does not support some parameters that demand more security or name other servers. Each of them is an error,
//! because the worker would otherwise connect with less than the operator asked for. Any other unknown parameter is a
//! warning.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use sqlx::postgres::PgSslMode;

use super::attributes::SessionAttributes;
use super::hosts::{self, Host};
use crate::sanitize;

/// Default of `connect_timeout`, for each host.
pub(in crate::outbox) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest `connect_timeout`, because lanes and the recorder wait for it.
const MAX_CONNECT_TIMEOUT_S: u64 = 60;
const APPLICATION_NAME: &str = "signaling-worker";

/// The parameters can't be used. No variant repeats a value, because any value may contain a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error(
        "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database, with other characters than letters and digits percent-encoded"
    )]
    Url,
    #[error(
        "DATABASE_URL begins with a quotation mark: write the URL without, because a file of variables may keep the mark as a part of the value"
    )]
    Quoted,
    #[error("{setting} is not valid: {expected}")]
    Invalid {
        setting: String,
        expected: &'static str,
    },
    #[error("{setting} is not supported: {advice}")]
    Unsupported {
        setting: String,
        advice: &'static str,
    },
}

/// The parsed parameters.
pub(crate) struct Parameters {
    /// At least one, in the order of the parameters.
    pub(super) hosts: Vec<Host>,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) database: Option<String>,
    pub(super) ssl_mode: PgSslMode,
    pub(super) root_certificate: Option<NamedFile>,
    pub(super) client_certificate: Option<NamedFile>,
    pub(super) client_key: Option<NamedFile>,
    pub(super) session_attributes: SessionAttributes,
    /// `load_balance_hosts=random`: each connection tries the hosts in another order.
    pub(super) shuffles_hosts: bool,
    pub(super) connect_timeout: Duration,
    pub(super) application_name: String,
    pub(super) options: Vec<String>,
    pub(super) statement_cache: Option<usize>,
    /// Parameters that the worker does not know, by name.
    pub(super) unknown: Vec<String>,
}

/// A file, and the setting that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFile {
    pub(super) setting: String,
    pub(super) path: PathBuf,
}

/// Supported parameters: libpq's name, sqlx's aliases, and the variable.
const KNOWN: &[(&str, &[&str], &str)] = &[
    ("host", &[], "PGHOST"),
    ("hostaddr", &[], "PGHOSTADDR"),
    ("port", &[], "PGPORT"),
    ("user", &[], "PGUSER"),
    ("password", &[], "PGPASSWORD"),
    ("passfile", &[], "PGPASSFILE"),
    ("dbname", &[], "PGDATABASE"),
    ("sslmode", &["ssl-mode"], "PGSSLMODE"),
    ("sslrootcert", &["ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
    ("sslcert", &["ssl-cert"], "PGSSLCERT"),
    ("sslkey", &["ssl-key"], "PGSSLKEY"),
    ("target_session_attrs", &[], "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", &[], "PGLOADBALANCEHOSTS"),
    ("connect_timeout", &[], "PGCONNECT_TIMEOUT"),
    ("application_name", &[], "PGAPPNAME"),
    // sqlx reads PGOPTIONS itself, and the URL's options come after them.
    ("options", &[], ""),
    ("statement-cache-capacity", &[], ""),
];

/// Unsupported parameters: libpq's name, the variable, the values that the worker accepts, and the advice for other values.
const REFUSED: &[(&str, &str, &[&str], &str)] = &[
    (
        "service",
        "PGSERVICE",
        &[],
        "write the parameters of the service into DATABASE_URL, and leave this out",
    ),
    (
        "channel_binding",
        "PGCHANNELBINDING",
        &["prefer", "disable"],
        "write sslmode=verify-full, which also proves the server's identity, and leave this out",
    ),
    (
        "require_auth",
        "PGREQUIREAUTH",
        &[],
        "write sslmode=verify-full, which proves the server's identity, and leave this out",
    ),
    (
        "requirepeer",
        "PGREQUIREPEER",
        &[],
        "connect by TCP with sslmode=verify-full, and leave this out",
    ),
    (
        "gssencmode",
        "PGGSSENCMODE",
        &["prefer", "disable"],
        "encrypt by TLS: write sslmode=verify-full, and leave this out",
    ),
    (
        "sslcrl",
        "PGSSLCRL",
        &[],
        "the worker reads no lists of revoked certificates: leave this out",
    ),
    (
        "sslcrldir",
        "PGSSLCRLDIR",
        &[],
        "the worker reads no lists of revoked certificates: leave this out",
    ),
    (
        "sslpassword",
        "",
        &[],
        "give the key of sslkey without a password, in a file that the worker alone can read",
    ),
    (
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        &["postgres"],
        "leave it out: the worker begins TLS in the usual way",
    ),
    (
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "the worker takes TLS 1.2 and newer: set ssl_min_protocol_version of the server",
    ),
    (
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        &["TLSv1.3"],
        "set ssl_max_protocol_version of the server",
    ),
    (
        "sslcertmode",
        "PGSSLCERTMODE",
        &["allow"],
        "leave it out: the worker shows the certificate of sslcert whenever the server asks",
    ),
];

/// A value, and the setting that gave it.
#[derive(Clone)]
struct Value {
    text: String,
    setting: String,
}

impl Value {
    fn invalid(&self, expected: &'static str) -> ParameterError {
        ParameterError::Invalid {
            setting: self.setting.clone(),
            expected,
        }
    }
}

/// All given values, by libpq's name.
#[derive(Default)]
struct Given {
    values: BTreeMap<&'static str, Value>,
    /// Each as `-c name=value`. The last value of a name wins.
    options: Vec<String>,
    unknown: Vec<String>,
}

impl Parameters {
    /// Parses a URL, or variables alone. `variable` reads a variable of the process.
    pub(crate) fn parse(
        url: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ParameterError> {
        let mut given = Given::default();
        given.read_variables(variable)?;
        if let Some(url) = url {
            given.read_url(url)?;
        }
        given.parameters()
    }

    /// All hosts and ports, for logs.
    pub(crate) fn address(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        hosts.join(",")
    }
}

impl Given {
    fn read_variables(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ParameterError> {
        // libpq also treats an empty variable as not set.
        let variable = |name: &str| {
            let value = variable(name).filter(|_| !name.is_empty());
            value.filter(|value| !value.is_empty())
        };
        for (name, _, variable_name) in KNOWN {
            if let Some(text) = variable(variable_name) {
                self.set(name, text, (*variable_name).to_owned());
            }
        }
        for (_, name, accepted, advice) in REFUSED {
            if let Some(text) = variable(name) {
                accept(&text, accepted, (*name).to_owned(), advice)?;
            }
        }
        Ok(())
    }

    fn read_url(&mut self, url: &str) -> Result<(), ParameterError> {
        if url.starts_with(['"', '\'']) {
            return Err(ParameterError::Quoted);
        }
        let url = hosts::split_url(url).ok_or(ParameterError::Url)?;
        let decoded = |text: &str| decoded(text).ok_or(ParameterError::Url);
        if !url.hosts.is_empty() {
            // PGHOSTADDR belongs to PGHOST, not to the hosts of the URL.
            self.values.remove("hostaddr");
        }
        for (name, value) in [
            ("host", &url.hosts),
            ("port", &url.ports),
            ("user", &url.user),
            ("password", &url.password),
            ("dbname", &url.database),
        ] {
            if !value.is_empty() {
                self.set(name, decoded(value)?, format!("the {name} of DATABASE_URL"));
            }
        }
        for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.read_parameter(&decoded(name)?, decoded(value)?)?;
        }
        Ok(())
    }

    fn read_parameter(&mut self, name: &str, text: String) -> Result<(), ParameterError> {
        let setting = format!("{name} of DATABASE_URL");
        // JDBC's form, which libpq accepts.
        let (name, text) = match (name, text.as_str()) {
            ("ssl", "true") => ("sslmode", "require".to_owned()),
            _ => (name, text),
        };
        if let Some(option) = name
            .strip_prefix("options[")
            .and_then(|rest| rest.strip_suffix(']'))
        {
            self.options.push(format!("-c {option}={text}"));
            return Ok(());
        }
        let known = KNOWN
            .iter()
            .find(|(known, others, _)| *known == name || others.contains(&name));
        if let Some((known, ..)) = known {
            self.set(known, text, setting);
            return Ok(());
        }
        if let Some((_, _, accepted, advice)) =
            REFUSED.iter().find(|(refused, ..)| *refused == name)
        {
            return accept(&text, accepted, setting, advice);
        }
        self.unknown.push(name.to_owned());
        Ok(())
    }

    fn set(&mut self, name: &'static str, text: String, setting: String) {
        if name == "options" {
            self.options.push(text);
        } else {
            self.values.insert(name, Value { text, setting });
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let value = self.values.remove(name);
        value.filter(|value| !value.text.is_empty())
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|value| value.text)
    }

    fn file(&mut self, name: &str) -> Option<NamedFile> {
        self.take(name).map(|value| NamedFile {
            setting: value.setting,
            path: PathBuf::from(value.text),
        })
    }

    fn parameters(mut self) -> Result<Parameters, ParameterError> {
        let ssl_mode = match self.take("sslmode") {
            Some(value) => value.text.parse().map_err(|_| {
                value.invalid("write disable, allow, prefer, require, verify-ca or verify-full")
            })?,
            None => PgSslMode::default(),
        };
        if self
            .values
            .get("sslrootcert")
            .is_some_and(|value| value.text == "system")
        {
            return Err(ParameterError::Unsupported {
                setting: "sslrootcert=system".into(),
                advice: "leave it out for the public CAs that the worker brings along, or name a file like /etc/ssl/certs/ca-certificates.crt",
            });
        }
        let hosts = self.hosts(ssl_mode)?;
        let session_attributes = match self.take("target_session_attrs") {
            Some(value) => SessionAttributes::parse(&value.text).ok_or_else(|| {
                value
                    .invalid("write any, read-write, read-only, primary, standby or prefer-standby")
            })?,
            // A worker needs a server that takes writes.
            None if hosts.len() > 1 => SessionAttributes::ReadWrite,
            None => SessionAttributes::Any,
        };
        let shuffles_hosts = match self.take("load_balance_hosts") {
            Some(value) => match value.text.as_str() {
                "disable" => false,
                "random" => true,
                _ => return Err(value.invalid("write disable or random")),
            },
            None => false,
        };
        let statement_cache = match self.take("statement-cache-capacity") {
            Some(value) => Some(
                value
                    .text
                    .parse()
                    .map_err(|_| value.invalid("write a number of statements"))?,
            ),
            None => None,
        };
        let application_name = self.text("application_name");
        Ok(Parameters {
            hosts,
            ssl_mode,
            session_attributes,
            shuffles_hosts,
            connect_timeout: self.connect_timeout()?,
            user: self.text("user"),
            password: self.text("password").map(SecretString::from),
            passfile: self.text("passfile").map(PathBuf::from),
            database: self.text("dbname"),
            root_certificate: self.file("sslrootcert"),
            client_certificate: self.file("sslcert"),
            client_key: self.file("sslkey"),
            application_name: application_name.unwrap_or_else(|| APPLICATION_NAME.to_owned()),
            options: self.options,
            statement_cache,
            unknown: self.unknown,
        })
    }

    fn hosts(&mut self, ssl_mode: PgSslMode) -> Result<Vec<Host>, ParameterError> {
        let [names, addresses, ports] = ["host", "hostaddr", "port"].map(|name| self.take(name));
        if let Some(addresses) = &addresses
            && names.is_some()
            && matches!(ssl_mode, PgSslMode::VerifyFull)
        {
            return Err(ParameterError::Unsupported {
                setting: format!("{} with sslmode=verify-full", addresses.setting),
                advice: "leave it out: the worker looks up the host's name for each new connection, and compares the certificate with that name",
            });
        }
        let list = |value: &Option<Value>| value.as_ref().map(|value| value.text.clone());
        hosts::hosts(list(&names), list(&addresses), list(&ports)).map_err(|mistake| {
            let value = match mistake {
                hosts::Mistake::Hosts(_) => names.or(addresses),
                hosts::Mistake::Addresses(_) => addresses,
                hosts::Mistake::Ports(_) => ports,
            };
            ParameterError::Invalid {
                setting: value.map_or_else(|| "host of DATABASE_URL".into(), |value| value.setting),
                expected: mistake.expected(),
            }
        })
    }

    fn connect_timeout(&mut self) -> Result<Duration, ParameterError> {
        let Some(value) = self.take("connect_timeout") else {
            return Ok(CONNECT_TIMEOUT);
        };
        match value.text.trim().parse() {
            Ok(seconds @ 1..=MAX_CONNECT_TIMEOUT_S) => Ok(Duration::from_secs(seconds)),
            _ => Err(value.invalid("write 1 to 60, in seconds; it holds for each host")),
        }
    }
}

/// Refuses an unsupported parameter, unless its value is one that the worker accepts.
fn accept(
    text: &str,
    accepted: &[&str],
    setting: String,
    advice: &'static str,
) -> Result<(), ParameterError> {
    if text.is_empty() || accepted.contains(&text) {
        return Ok(());
    }
    Err(ParameterError::Unsupported { setting, advice })
}

/// Percent-decodes as libpq does. A plus stays a plus.
fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
        .filter(|text| !text.contains('\0'))
}

/// The names of unknown parameters. The worker replaces a text that looks like no name, because a password that was not
/// percent-encoded may end up there.
pub(super) fn unknown_names(parameters: &Parameters) -> Vec<String> {
    let shown = |name: &String| {
        if sanitize::looks_like_setting_name(name) {
            name.clone()
        } else {
            "a text that is no name".to_owned()
        }
    };
    parameters.unknown.iter().map(shown).collect()
}

pub(super) fn warn_of_unknown(parameters: &Parameters) {
    for name in unknown_names(parameters) {
        tracing::warn!(
            event = "database_parameter_ignored",
            "DATABASE_URL has an unknown parameter, which has no effect: {name}"
        );
    }
}

/// Prints no value, because any value may contain a password.
impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Parameters")
            .field("hosts", &self.hosts.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
