//! Parses a URL and its list of hosts. sqlx knows a single host.

use std::fmt;
use std::path::Path;

use percent_encoding::percent_decode_str;

const MAX_HOSTS: usize = 16;
const DEFAULT_PORT: u16 = 5432;
/// Packages of Postgres put the server's socket into one of these.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

pub(super) struct Host {
    /// A name, an address, or the directory of a socket, which begins with a slash.
    pub(super) name: String,
    pub(super) port: u16,
}

impl Host {
    /// Without a name, the server of this machine: its socket if there is one, otherwise TCP.
    pub(super) fn new(name: &str, port: u16) -> Self {
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
pub(super) fn parse_names(list: &str) -> Option<Vec<String>> {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || byte > 127;
    let is_valid = |name: &String| name.starts_with('/') || name.bytes().all(is_allowed);
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    (names.iter().all(is_valid) && names.len() <= MAX_HOSTS).then_some(names)
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
