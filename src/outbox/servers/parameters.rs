//! Parses libpq's connection parameters from a URL, and from `PG*` variables for parameters that the URL leaves out.
//!
//! A parameter that the worker does not support is an error if it demands more security or names other servers, because
//! the worker would otherwise connect with less than the operator asked for. Any other unknown parameter is a warning.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::postgres::PgSslMode;

use super::attributes::{self, Requirement};
use super::hosts::{self, Host};
use crate::sanitize;

/// Default of `connect_timeout`, for each host.
pub(in crate::outbox) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest `connect_timeout`, because lanes and the recorder wait for it.
const MAX_CONNECT_TIMEOUT_S: u64 = 60;
const APPLICATION_NAME: &str = "signaling-worker";

const NAME_CA_FILE: &str = "leave it out for the public CAs that the worker brings along, or name a file like /etc/ssl/certs/ca-certificates.crt";
const VERIFY: &str = "write sslmode=verify-full, which encrypts and proves the server's identity, and leave this out";
const LIMIT_AT_SERVER: &str =
    "the worker uses TLS 1.2 or 1.3: set the limit at the server, and leave this out";
const LEAVE_OUT: &str = "the worker has no such function: leave this out";
const WRITE_LIBPQ: &str = "write sslmode, sslrootcert, sslcert or sslkey, as libpq does";

/// libpq's name, the variable, the accepted values, and the advice for another value. A parameter that the worker supports
/// has no list of values. For one that it does not support, it accepts the values that ask for no more than it does.
type Parameter = (
    &'static str,
    &'static str,
    Option<&'static [&'static str]>,
    &'static str,
);

#[rustfmt::skip]
const PARAMETERS: &[Parameter] = &[
    ("host", "PGHOST", None, "write up to 16 names, addresses or directories of sockets, with commas between them"),
    ("port", "PGPORT", None, "write one port for all hosts, or one for each, as numbers from 1 to 65535"),
    ("user", "PGUSER", None, ""),
    ("password", "PGPASSWORD", None, ""),
    ("passfile", "PGPASSFILE", None, ""),
    ("dbname", "PGDATABASE", None, ""),
    ("sslmode", "PGSSLMODE", None, "write disable, allow, prefer, require, verify-ca or verify-full"),
    ("sslrootcert", "PGSSLROOTCERT", None, ""),
    ("sslcert", "PGSSLCERT", None, ""),
    ("sslkey", "PGSSLKEY", None, ""),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", None,
        "write any, read-write, read-only, primary, standby or prefer-standby"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", None, "write disable or random"),
    ("connect_timeout", "PGCONNECT_TIMEOUT", None, "write 1 to 60, in seconds; it holds for each host"),
    ("application_name", "PGAPPNAME", None, ""),
    // sqlx reads PGOPTIONS itself, and the URL's options come after them.
    ("options", "", None, ""),
    ("hostaddr", "PGHOSTADDR", Some(&[]), "write the address as the host, and leave this out"),
    ("service", "PGSERVICE", Some(&[]), "write the parameters of the service into DATABASE_URL, and leave this out"),
    ("channel_binding", "PGCHANNELBINDING", Some(&["prefer", "disable"]), VERIFY),
    ("require_auth", "PGREQUIREAUTH", Some(&[]), VERIFY),
    ("requirepeer", "PGREQUIREPEER", Some(&[]), VERIFY),
    ("gssencmode", "PGGSSENCMODE", Some(&["prefer", "disable"]), VERIFY),
    ("sslcrl", "PGSSLCRL", Some(&[]), LEAVE_OUT),
    ("sslcrldir", "PGSSLCRLDIR", Some(&[]), LEAVE_OUT),
    ("sslcertmode", "PGSSLCERTMODE", Some(&["allow"]), LEAVE_OUT),
    ("sslnegotiation", "PGSSLNEGOTIATION", Some(&["postgres"]), LEAVE_OUT),
    ("sslpassword", "", Some(&[]), "give the key of sslkey without a password, and leave this out"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Some(&["TLSv1", "TLSv1.1", "TLSv1.2"]), LIMIT_AT_SERVER),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Some(&["TLSv1.3"]), LIMIT_AT_SERVER),
    // sqlx's own names.
    ("ssl-mode", "", Some(&[]), WRITE_LIBPQ),
    ("ssl-root-cert", "", Some(&[]), WRITE_LIBPQ),
    ("ssl-ca", "", Some(&[]), WRITE_LIBPQ),
    ("ssl-cert", "", Some(&[]), WRITE_LIBPQ),
    ("ssl-key", "", Some(&[]), WRITE_LIBPQ),
];

/// The parameters can't be used. No variant repeats a value, because any value may contain a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error(
        "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database, without quotation marks, and with other characters than letters and digits percent-encoded"
    )]
    Url,
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
    #[error("{setting} names {path}: {why}")]
    File {
        setting: String,
        path: String,
        why: String,
    },
}

pub(crate) struct Parameters {
    /// At least one.
    pub(super) hosts: Vec<Host>,
    pub(super) password: Option<SecretString>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) ssl_mode: PgSslMode,
    pub(super) requirements: &'static [Requirement],
    /// `load_balance_hosts=random`: each connection tries the hosts in another order.
    pub(super) shuffles_hosts: bool,
    pub(super) connect_timeout: Duration,
    /// The names of parameters that have no effect, for a warning.
    pub(super) unknown: Vec<String>,
    /// The other parameters, which sqlx takes unchanged.
    pub(super) for_sqlx: BTreeMap<String, Value>,
}

pub(super) struct Value {
    pub(super) text: String,
    /// The setting that gave it, for errors.
    pub(super) setting: String,
}

impl Parameters {
    /// Parses a URL, or variables alone. `variable` reads a variable of the process.
    pub(crate) fn parse(
        url: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ParameterError> {
        let mut given = Given::default();
        given.insert("application_name".into(), APPLICATION_NAME.into(), "");
        for &(name, variable_name, ..) in PARAMETERS {
            if let Some(text) = variable(variable_name) {
                given.insert(name.into(), text, variable_name);
            }
        }
        if let Some(url) = url {
            for (name, text) in hosts::split_url(url).ok_or(ParameterError::Url)? {
                // JDBC's form, which libpq accepts.
                let (name, text) = match (name.as_str(), text.as_str()) {
                    ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
                    _ => (name, text),
                };
                let setting = format!("{name} of DATABASE_URL");
                given.insert(name, text, &setting);
            }
        }
        let unknown = given.take_unknown();
        // libpq, too, treats an empty value as one that is not set.
        given.0.retain(|_, value| !value.text.is_empty());
        given.take_unsupported()?;

        let names = given.parse("host", "", hosts::parse_names)?;
        let ports = given.parse("port", "", |list| hosts::parse_ports(list, names.len()))?;
        // A worker needs a server that takes writes.
        let attributes = if names.len() > 1 { "read-write" } else { "any" };
        let default_timeout = &CONNECT_TIMEOUT.as_secs().to_string();
        let hosts = names.iter().zip(ports);
        Ok(Self {
            hosts: hosts.map(|(name, port)| Host::new(name, port)).collect(),
            ssl_mode: given.parse("sslmode", "prefer", |text| text.parse().ok())?,
            requirements: given.parse("target_session_attrs", attributes, attributes::parse)?,
            shuffles_hosts: given.parse("load_balance_hosts", "disable", |text| {
                (text == "random" || text == "disable").then_some(text == "random")
            })?,
            connect_timeout: given.parse("connect_timeout", default_timeout, |text| {
                let seconds = text.trim().parse().ok();
                let seconds = seconds.filter(|s| (1..=MAX_CONNECT_TIMEOUT_S).contains(s));
                seconds.map(Duration::from_secs)
            })?,
            password: given.take("password").map(SecretString::from),
            passfile: given.take("passfile").map(PathBuf::from),
            unknown,
            for_sqlx: given.0,
        })
    }
}

/// The given parameters by libpq's name.
#[derive(Default)]
struct Given(BTreeMap<String, Value>);

impl Given {
    fn insert(&mut self, name: String, text: String, setting: &str) {
        let setting = setting.to_owned();
        self.0.insert(name, Value { text, setting });
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).map(|value| value.text)
    }

    fn parse<T>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ParameterError> {
        let given = self.0.remove(name);
        let text = given.as_ref().map_or(default, |given| &given.text);
        parse(text).ok_or_else(|| ParameterError::Invalid {
            setting: given.map_or_else(|| name.to_owned(), |given| given.setting),
            expected: known(name).map_or("", |&(.., advice)| advice),
        })
    }

    /// Takes the names of unknown parameters. A text that looks like no name is replaced, because a password that was not
    /// percent-encoded may end up there.
    fn take_unknown(&mut self) -> Vec<String> {
        let is_unknown = |name: &str| {
            let is_option = name.starts_with("options[") && name.ends_with(']');
            !is_option && known(name).is_none()
        };
        let mut unknown = Vec::new();
        for (name, _) in self.0.extract_if(.., |name, _| is_unknown(name)) {
            if sanitize::looks_like_setting_name(&name) {
                unknown.push(name);
            } else {
                unknown.push("a text that is no name".into());
            }
        }
        unknown
    }

    fn take_unsupported(&mut self) -> Result<(), ParameterError> {
        let ca_file = self.0.get("sslrootcert");
        if ca_file.is_some_and(|file| file.text == "system") {
            return Err(ParameterError::Unsupported {
                setting: "sslrootcert=system".into(),
                advice: NAME_CA_FILE,
            });
        }
        for &(name, _, accepted, advice) in PARAMETERS {
            if let Some(accepted) = accepted
                && let Some(Value { text, setting }) = self.0.remove(name)
                && !accepted.contains(&text.as_str())
            {
                return Err(ParameterError::Unsupported { setting, advice });
            }
        }
        Ok(())
    }
}

fn known(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|(known, ..)| *known == name)
}

#[cfg(test)]
mod tests;
