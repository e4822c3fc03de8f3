//! Parses libpq's connection parameters from a URL with several hosts, and from `PG*` variables for parameters that the URL
//! leaves out.
//!
//! A parameter that the worker does not support is an error if it demands more security or names other servers, because
//! the worker would otherwise connect with less than the operator asked for. Any other unknown parameter has no effect, such
//! as those of an application's own pool.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgSslMode;

/// Default of `connect_timeout`, for each host.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest `connect_timeout`, because lanes and the recorder wait for it.
const MAX_CONNECT_TIMEOUT_S: u64 = 60;
const MAX_HOSTS: usize = 16;
const DEFAULT_PORT: u16 = 5432;
/// Packages of Postgres put the server's socket into one of these.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

const VERIFY: &str = "write sslmode=verify-full, which encrypts and proves the server's identity, and leave this out";
const OMIT: &str =
    "the worker can't apply it, so it would connect with less security: leave it out";
const PASSFILE: &str = "set PGPASSFILE, and leave this out";
const HOSTADDR: &str = "write the address as the host, and leave this out";
const TLS: &str = "the worker uses TLS 1.2 or 1.3: set the limit at the server, and leave this out";
const HOSTS: &str = "leave this out: of several hosts, the worker uses one that takes writes";
const SERVICE: &str = "write its parameters into DATABASE_URL, and leave this out";

/// libpq's name and the variable of each parameter that the worker supports.
const SUPPORTED: [(&str, &str); 12] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("application_name", "PGAPPNAME"),
    // sqlx reads PGOPTIONS and PGPASSFILE itself.
    ("options", ""),
];

/// The other parameters of libpq: name, variable, the values that ask for no more than the worker does, and the advice for
/// any other value.
const UNSUPPORTED: [(&str, &str, &[&str], &str); 14] = [
    ("passfile", "in DATABASE_URL", &[], PASSFILE),
    ("hostaddr", "PGHOSTADDR", &[], HOSTADDR),
    ("service", "PGSERVICE", &[], SERVICE),
    (
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        PRIMARY,
        HOSTS,
    ),
    ("channel_binding", "PGCHANNELBINDING", OPTIONAL, VERIFY),
    ("gssencmode", "PGGSSENCMODE", OPTIONAL, VERIFY),
    ("require_auth", "PGREQUIREAUTH", &[], VERIFY),
    ("requirepeer", "PGREQUIREPEER", &[], VERIFY),
    ("sslcrl", "PGSSLCRL", &[], OMIT),
    ("sslcrldir", "PGSSLCRLDIR", &[], OMIT),
    ("sslcertmode", "PGSSLCERTMODE", &["allow"], OMIT),
    ("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"], OMIT),
    (
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        OLD_TLS,
        TLS,
    ),
    (
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        &["TLSv1.3"],
        TLS,
    ),
];
const OPTIONAL: &[&str] = &["prefer", "disable"];
const PRIMARY: &[&str] = &["any", "read-write", "primary"];
const OLD_TLS: &[&str] = &["TLSv1", "TLSv1.1", "TLSv1.2"];

/// A mistake in the parameters, with the remedy. Repeats no value, because any value may contain a password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParameterError(String);

pub struct Parameters {
    /// At least one.
    pub hosts: Vec<Host>,
    pub ssl_mode: PgSslMode,
    pub connect_timeout: Duration,
    /// The other parameters, which sqlx takes unchanged.
    pub for_sqlx: BTreeMap<String, String>,
}

impl Parameters {
    /// Parses a URL, or variables alone. `variable` reads a variable of the process.
    ///
    /// # Errors
    /// If a parameter is not valid, or demands more than the worker supports.
    pub fn parse(
        url: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ParameterError> {
        let mut given = BTreeMap::new();
        given.insert("application_name".to_owned(), "signaling-worker".to_owned());
        let unsupported = UNSUPPORTED.map(|(name, variable_name, ..)| (name, variable_name));
        for (name, variable_name) in SUPPORTED.into_iter().chain(unsupported) {
            given.extend(variable(variable_name).map(|text| (name.to_owned(), text)));
        }
        if let Some(url) = url {
            given.extend(split_url(url).ok_or_else(|| ParameterError(
                "DATABASE_URL is not a Postgres URL: write it like postgres://user:password@host:5432/database, without quotation marks, and with other characters than letters and digits percent-encoded".into(),
            ))?);
        }
        // As libpq does: an empty value counts as not set.
        given.retain(|_, text| !text.is_empty());
        for (name, variable, harmless, advice) in UNSUPPORTED {
            if let Some(text) = given.remove(name)
                && !harmless.contains(&text.as_str())
            {
                return Err(mistake(name, variable, "is not supported", advice));
            }
        }
        let is_option = |name: &str| name.starts_with("options[") && name.ends_with(']');
        let is_known = |name: &str| SUPPORTED.iter().any(|(known, _)| *known == name);
        let mut unknown = given.extract_if(.., |name, _| !is_known(name) && !is_option(name));
        if unknown.any(|(name, _)| name.starts_with("ssl")) {
            return Err(ParameterError(
                "DATABASE_URL has an unknown parameter that begins with ssl: write sslmode, sslrootcert, sslcert or sslkey, as libpq does".into(),
            ));
        }

        // The default of libpq. Without it, sqlx would log in as "anonymous".
        if let (false, Ok(user)) = (given.contains_key("user"), whoami::username()) {
            given.insert("user".to_owned(), user);
        }
        // The default of libpq. Without it, sqlx would skip a line of a password file that names this database.
        if let (false, Some(user)) = (given.contains_key("dbname"), given.get("user").cloned()) {
            given.insert("dbname".to_owned(), user);
        }
        let advice =
            "write up to 16 names, addresses or directories of sockets, with commas between them";
        let names = parse(&mut given, "host", "", advice, parse_names)?;
        let advice = "write one port for all hosts, or one for each, as numbers from 1 to 65535";
        let ports = |list: &str| parse_ports(list, names.len());
        let ports = parse(&mut given, "port", "", advice, ports)?;
        let advice = "write disable, allow, prefer, require, verify-ca or verify-full";
        let mut ssl_mode = parse(&mut given, "sslmode", "prefer", advice, |text| {
            text.parse().ok()
        })?;
        // As libpq does, because a certificate without a check would have no effect.
        if matches!(ssl_mode, PgSslMode::Require) && given.contains_key("sslrootcert") {
            ssl_mode = PgSslMode::VerifyCa;
        }
        let advice = "write 1 to 60, in seconds; it holds for each host";
        let connect_timeout = parse(&mut given, "connect_timeout", "3", advice, |text| {
            let seconds = text.trim().parse().ok();
            seconds.filter(|seconds| (1..=MAX_CONNECT_TIMEOUT_S).contains(seconds))
        })?;
        let hosts = std::iter::zip(&names, ports);
        Ok(Self {
            hosts: hosts.map(|(name, port)| Host::new(name, port)).collect(),
            ssl_mode,
            connect_timeout: Duration::from_secs(connect_timeout),
            for_sqlx: given,
        })
    }
}

/// Removes a parameter, and parses its text or the default.
fn parse<T>(
    given: &mut BTreeMap<String, String>,
    name: &str,
    default: &str,
    advice: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, ParameterError> {
    let text = given.remove(name);
    parse(text.as_deref().unwrap_or(default)).ok_or_else(|| {
        let known = SUPPORTED.iter().find(|(known, _)| *known == name);
        let variable = known.map_or("", |(_, variable)| variable);
        mistake(name, variable, "is not valid", advice)
    })
}

fn mistake(name: &str, variable: &str, what: &str, advice: &str) -> ParameterError {
    ParameterError(format!("{name} ({variable}) {what}: {advice}"))
}

pub struct Host {
    /// A name, an address, or the directory of a socket, which begins with a slash.
    pub name: String,
    pub port: u16,
}

impl Host {
    /// An empty name stands for the server of this machine: its socket if there is one, otherwise TCP.
    fn new(name: &str, port: u16) -> Self {
        let socket = format!(".s.PGSQL.{port}");
        let has_socket = |directory: &&str| Path::new(directory).join(&socket).exists();
        let name = match name {
            "" => SOCKET_DIRECTORIES.into_iter().find(has_socket),
            name => Some(name),
        };
        let name = name.unwrap_or("localhost").to_owned();
        Self { name, port }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            return write!(formatter, "[{}]:{}", self.name, self.port);
        }
        write!(formatter, "{}:{}", self.name, self.port)
    }
}

/// Parses the list of hosts. None if a character can't be part of a host, or if there are too many hosts.
fn parse_names(list: &str) -> Option<Vec<String>> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || byte > 127;
    let is_valid = |name: &String| name.starts_with('/') || name.bytes().all(is_allowed);
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    (names.iter().all(is_valid) && names.len() <= MAX_HOSTS).then_some(names)
}

/// Parses the list of ports. A single port applies to all hosts.
fn parse_ports(list: &str, hosts: usize) -> Option<Vec<u16>> {
    let port = |text: &str| match text.trim() {
        "" => Some(DEFAULT_PORT),
        text => text.parse().ok().filter(|port| *port > 0),
    };
    let mut ports: Vec<u16> = list.split(',').map(port).collect::<Option<_>>()?;
    if let [port] = ports[..] {
        ports = vec![port; hosts];
    }
    (ports.len() == hosts).then_some(ports)
}

/// Splits a URL as libpq does, into decoded parameters with libpq's names. None if it is no URL of Postgres.
fn split_url(url: &str) -> Option<Vec<(String, String)>> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Without this check, a password with one of these characters would be parsed as host and port, and be logged.
    if !authority.contains('@') && path.contains('@') {
        return None;
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (login, servers) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let servers: Vec<_> = servers.split(',').map(split_port).collect::<Option<_>>()?;
    let (hosts, ports): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
    let (hosts, mut ports) = (hosts.join(","), ports.join(","));
    if ports.bytes().all(|byte| byte == b',') {
        ports.clear();
    }
    let known = [
        ("host", hosts.as_str()),
        ("port", &ports),
        ("user", user),
        ("password", password),
        ("dbname", path.trim_start_matches('/')),
    ];
    let query = query.split('&');
    let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    known
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .chain(query)
        // As libpq does: a plus stays a plus.
        .map(|(name, value)| Some((decode(name)?, decode(value)?)))
        .collect()
}

/// Splits a server into host and port. A port that is no number is the end of a password that needs percent-encoding, so
/// the URL is refused.
fn split_port(server: &str) -> Option<(&str, &str)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, ""),
            (host, rest) => (host, rest.strip_prefix(':')?),
        },
        None => server.split_once(':').unwrap_or((server, "")),
    };
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some((host, port))
}

fn decode(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests;
