//! Parses a URL and its list of hosts. sqlx knows a single host.

use std::fmt;
use std::path::Path;

use percent_encoding::percent_decode_str;

const MAX_HOSTS: usize = 16;
const DEFAULT_PORT: u16 = 5432;
/// Packages of Postgres put the server's socket into one of these.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// A name, an address, or the directory of a socket, which begins with a slash.
    pub(super) name: String,
    pub(super) port: u16,
}

impl Host {
    /// Without a name, the server of this machine: its socket if there is one, otherwise TCP.
    pub(super) fn new(name: &str, port: u16) -> Self {
        let has_socket = |directory: &&str| {
            let socket = Path::new(directory).join(format!(".s.PGSQL.{port}"));
            socket.exists()
        };
        let default = || SOCKET_DIRECTORIES.into_iter().find(has_socket);
        let name = Some(name).filter(|name| !name.is_empty());
        Self {
            name: name.or_else(default).unwrap_or("localhost").to_owned(),
            port,
        }
    }

    pub(super) fn is_socket(&self) -> bool {
        self.name.starts_with('/')
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
pub(super) fn parse_names(list: &str) -> Option<Vec<String>> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || byte > 127;
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    let are_valid = names
        .iter()
        .all(|name| name.starts_with('/') || name.bytes().all(is_allowed));
    (are_valid && names.len() <= MAX_HOSTS).then_some(names)
}

/// Parses the list of ports. A single port applies to all hosts.
pub(super) fn parse_ports(list: &str, hosts: usize) -> Option<Vec<u16>> {
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
pub(super) fn split_url(url: &str) -> Option<Vec<(String, String)>> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Without this check, a password with one of these characters would be parsed as host and port, and be logged.
    if !authority.contains('@') && path.contains('@') {
        return None;
    }
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (login, servers) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let servers: Vec<_> = servers.split(',').map(split_port).collect::<Option<_>>()?;
    let (hosts, ports): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
    let (hosts, mut ports) = (hosts.join(","), ports.join(","));
    if ports.bytes().all(|byte| byte == b',') {
        ports.clear();
    }
    let mut pairs = vec![
        ("host", hosts.as_str()),
        ("port", &ports),
        ("user", user),
        ("password", password),
        ("dbname", path.trim_start_matches('/')),
    ];
    pairs.retain(|(_, value)| !value.is_empty());
    let query = query.split('&').filter(|pair| !pair.is_empty());
    pairs.extend(query.map(|pair| match pair {
        // JDBC's form, which libpq accepts.
        "ssl=true" => ("sslmode", "require"),
        _ => pair.split_once('=').unwrap_or((pair, "")),
    }));
    pairs
        .into_iter()
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

/// Percent-decodes as libpq does. A plus stays a plus.
fn decode(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains('\0')).then(|| text.into_owned())
}
