//! Parses libpq's connection parameters from a URL, and from `PG*` variables for parameters that the URL leaves out.
//!
//! A parameter that the worker does not support is an error if it demands more security or names other servers, because
//! the worker would otherwise connect with less than the operator asked for. Any other unknown parameter has no effect, such
//! as those of an application's own pool.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use sqlx::postgres::PgSslMode;

use super::hosts::{self, Host};
use crate::sanitize;

/// Default of `connect_timeout`, for each host.
pub(in crate::outbox) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest `connect_timeout`, because lanes and the recorder wait for it.
const MAX_CONNECT_TIMEOUT_S: u64 = 60;
const APPLICATION_NAME: &str = "signaling-worker";
/// Far above the system's own certificate bundles of some 300 KB.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

const VERIFY: &str = "write sslmode=verify-full, which encrypts and proves the server's identity, and leave this out";
const LIMIT_AT_SERVER: &str =
    "the worker uses TLS 1.2 or 1.3: set the limit at the server, and leave this out";
const LEAVE_OUT: &str = "the worker has no such function: leave this out";

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
    ("connect_timeout", "PGCONNECT_TIMEOUT", None, "write 1 to 60, in seconds; it holds for each host"),
    ("application_name", "PGAPPNAME", None, ""),
    // sqlx reads PGOPTIONS itself, and the URL's options come after them.
    ("options", "", None, ""),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Some(&["any", "read-write", "primary"]),
        "leave this out: of several hosts, the worker uses one that takes writes"),
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
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Some(&["TLSv1", "TLSv1.1", "TLSv1.2"]), LIMIT_AT_SERVER),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Some(&["TLSv1.3"]), LIMIT_AT_SERVER),
];

/// The parameters can't be used. The text repeats no value, because any value may contain a password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ParameterError(String);

impl ParameterError {
    fn new(name: &str, what: &str) -> Self {
        let &(.., variable, _, advice) = PARAMETERS
            .iter()
            .find(|(known, ..)| *known == name)
            .unwrap_or(&("", "", None, ""));
        Self(format!("{name} ({variable}) {what}: {advice}"))
    }
}

pub(crate) struct Parameters {
    /// At least one.
    pub(super) hosts: Vec<Host>,
    pub(super) password: Option<SecretString>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) ssl_mode: PgSslMode,
    pub(super) connect_timeout: Duration,
    /// The other parameters, which sqlx takes unchanged.
    pub(super) for_sqlx: BTreeMap<String, String>,
}

impl Parameters {
    /// Parses a URL, or variables alone. `variable` reads a variable of the process.
    pub(crate) fn parse(
        url: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ParameterError> {
        let mut given = BTreeMap::new();
        given.insert("application_name".to_owned(), APPLICATION_NAME.to_owned());
        for &(name, variable_name, ..) in PARAMETERS {
            given.extend(variable(variable_name).map(|text| (name.to_owned(), text)));
        }
        if let Some(url) = url {
            given.extend(hosts::split_url(url).ok_or_else(|| ParameterError(
                "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database, without quotation marks, and with other characters than letters and digits percent-encoded".into(),
            ))?);
        }
        // libpq, too, treats an empty value as one that is not set.
        given.retain(|_, text| !text.is_empty());
        for &(name, _, accepted, _) in PARAMETERS {
            if let Some(accepted) = accepted
                && let Some(text) = given.remove(name)
                && !accepted.contains(&text.as_str())
            {
                return Err(ParameterError::new(name, "is not supported"));
            }
        }
        let is_option = |name: &str| name.starts_with("options[") && name.ends_with(']');
        let is_known = |name: &str| PARAMETERS.iter().any(|(known, ..)| *known == name);
        for (name, _) in given.extract_if(.., |name, _| !is_known(name) && !is_option(name)) {
            if name.starts_with("ssl") {
                return Err(ParameterError(
                    "DATABASE_URL has an unknown parameter that begins with ssl: write sslmode, sslrootcert, sslcert or sslkey, as libpq does".into(),
                ));
            }
        }

        let names = parse(&mut given, "host", "", hosts::parse_names)?;
        let ports = |list: &str| hosts::parse_ports(list, names.len());
        let ports = parse(&mut given, "port", "", ports)?;
        let mut ssl_mode = parse(&mut given, "sslmode", "prefer", |text| text.parse().ok())?;
        // As libpq does, because a certificate without a check would have no effect.
        if matches!(ssl_mode, PgSslMode::Require) && given.contains_key("sslrootcert") {
            ssl_mode = PgSslMode::VerifyCa;
        }
        let default_timeout = CONNECT_TIMEOUT.as_secs().to_string();
        Ok(Self {
            hosts: std::iter::zip(&names, ports)
                .map(|(name, port)| Host::new(name, port))
                .collect(),
            ssl_mode,
            connect_timeout: parse(&mut given, "connect_timeout", &default_timeout, |text| {
                let seconds = text.trim().parse().ok();
                let seconds = seconds.filter(|s| (1..=MAX_CONNECT_TIMEOUT_S).contains(s));
                seconds.map(Duration::from_secs)
            })?,
            password: given.remove("password").map(SecretString::from),
            passfile: given.remove("passfile").map(PathBuf::from),
            for_sqlx: given,
        })
    }

    /// Checks the certificate and key files, because an error of the connection does not name the file.
    pub(super) fn check_tls_files(&self) -> Result<(), ParameterError> {
        if matches!(self.ssl_mode, PgSslMode::Disable | PgSslMode::Allow) {
            return Ok(());
        }
        for name in ["sslrootcert", "sslcert", "sslkey"] {
            if let Some(path) = self.for_sqlx.get(name) {
                check_pem(Path::new(path), name == "sslkey")
                    .map_err(|why| ParameterError(format!("{name} names {path}: {why}")))?;
            }
        }
        Ok(())
    }
}

fn check_pem(path: &Path, is_key: bool) -> Result<(), String> {
    let pem = sanitize::read_file(path, MAX_PEM_BYTES).map_err(|error| error.to_string())?;
    // The text of an error may repeat a key.
    if is_key {
        let key = PrivateKeyDer::from_pem_slice(&pem).map(drop);
        key.map_err(|_| "it has no private key in PEM form".into())
    } else {
        let certificate = CertificateDer::from_pem_slice(&pem).map(drop);
        certificate.map_err(|_| "it has no certificate in PEM form".into())
    }
}

/// Removes a parameter, and parses its text or the default.
fn parse<T>(
    given: &mut BTreeMap<String, String>,
    name: &str,
    default: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, ParameterError> {
    let text = given.remove(name);
    parse(text.as_deref().unwrap_or(default))
        .ok_or_else(|| ParameterError::new(name, "is not valid"))
}

#[cfg(test)]
mod tests;
