//! Parses the hosts of a URL or of lists.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The most hosts of one database.
const MAX_HOSTS: usize = 16;
const DEFAULT_PORT: u16 = 5432;
/// Packages of Postgres put the server's socket into one of these.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// The host name for the password file.
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    pub(super) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A name or an address. The worker resolves a name for each connection.
    Tcp(String),
    /// The directory of a socket.
    Socket(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(host) if host.contains(':') => {
                write!(formatter, "[{host}]:{}", self.port)
            }
            Endpoint::Tcp(host) => write!(formatter, "{host}:{}", self.port),
            Endpoint::Socket(directory) => {
                write!(formatter, "{}:{}", directory.display(), self.port)
            }
        }
    }
}

/// The list with the mistake, and the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    Hosts(&'static str),
    Addresses(&'static str),
    Ports(&'static str),
}

impl Mistake {
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Hosts(expected) | Self::Addresses(expected) | Self::Ports(expected) => expected,
        }
    }
}

/// Combines three comma-separated lists. A single port applies to all hosts.
pub(super) fn hosts(
    names: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
) -> Result<Vec<Host>, Mistake> {
    let list = |text: Option<String>| -> Option<Vec<String>> {
        Some(
            text?
                .split(',')
                .map(|part| part.trim().to_owned())
                .collect(),
        )
    };
    let (names, addresses) = (list(names), list(addresses));
    let count = names.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    if count > MAX_HOSTS {
        return Err(Mistake::Hosts("name at most 16 hosts"));
    }
    if addresses.as_ref().is_some_and(|list| list.len() != count) {
        return Err(Mistake::Addresses("give as many addresses as hosts"));
    }
    let ports = ports_of(&list(ports).unwrap_or_default(), count)?;
    (0..count)
        .zip(ports)
        .map(|(place, port)| {
            let at = |list: &Option<Vec<String>>| {
                let element = list.as_ref().and_then(|list| list.get(place)).cloned();
                element.filter(|element| !element.is_empty())
            };
            host(at(&names), at(&addresses), port)
        })
        .collect()
}

fn ports_of(ports: &[String], count: usize) -> Result<Vec<u16>, Mistake> {
    const EXPECTED: Mistake = Mistake::Ports("write numbers from 1 to 65535");
    let ports: Vec<u16> = ports
        .iter()
        .map(|port| match port.as_str() {
            "" => Ok(DEFAULT_PORT),
            port => match port.parse() {
                Ok(port @ 1..) => Ok(port),
                _ => Err(EXPECTED),
            },
        })
        .collect::<Result<_, _>>()?;
    match ports.as_slice() {
        [] => Ok(vec![DEFAULT_PORT; count]),
        [port] => Ok(vec![*port; count]),
        _ if ports.len() == count => Ok(ports),
        _ => Err(Mistake::Ports("give one port, or as many as hosts")),
    }
}

fn host(name: Option<String>, address: Option<String>, port: u16) -> Result<Host, Mistake> {
    if let Some(address) = address {
        if address.parse::<IpAddr>().is_err() {
            return Err(Mistake::Addresses("write IP addresses"));
        }
        return Ok(Host {
            name: name.unwrap_or_else(|| address.clone()),
            endpoint: Endpoint::Tcp(address),
            port,
        });
    }
    let Some(name) = name else {
        return Ok(default_host(port));
    };
    if name.starts_with('/') {
        return Ok(Host {
            // In a password file, localhost stands for a socket.
            name: "localhost".into(),
            endpoint: Endpoint::Socket(PathBuf::from(name)),
            port,
        });
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || byte > 127;
    if !name.bytes().all(is_name) {
        return Err(Mistake::Hosts(
            "write names, addresses, or directories of sockets, with commas between them",
        ));
    }
    Ok(Host {
        endpoint: Endpoint::Tcp(name.clone()),
        name,
        port,
    })
}

/// The server of this machine: its socket if there is one, otherwise TCP.
fn default_host(port: u16) -> Host {
    let socket = SOCKET_DIRECTORIES
        .iter()
        .map(Path::new)
        .find(|directory| directory.join(format!(".s.PGSQL.{port}")).exists());
    Host {
        name: "localhost".into(),
        endpoint: socket.map_or_else(
            || Endpoint::Tcp("localhost".into()),
            |directory| Endpoint::Socket(directory.to_owned()),
        ),
        port,
    }
}

/// The parts of a URL, still percent-encoded. A missing part is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UrlParts {
    pub(super) user: String,
    pub(super) password: String,
    /// With commas between them; without the brackets of IPv6 addresses.
    pub(super) hosts: String,
    /// As many as hosts, or empty if the URL has no port.
    pub(super) ports: String,
    pub(super) database: String,
    pub(super) query: String,
}

/// Splits a URL as libpq does. None if it is no URL of Postgres.
pub(super) fn split_url(url: &str) -> Option<UrlParts> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))?;
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
    let mut parts = UrlParts {
        user: user.to_owned(),
        password: password.to_owned(),
        database: path.trim_start_matches('/').to_owned(),
        query: query.to_owned(),
        ..UrlParts::default()
    };
    if !servers.is_empty() {
        let servers: Vec<_> = servers
            .split(',')
            .map(host_and_port)
            .collect::<Option<_>>()?;
        let (names, numbers): (Vec<&str>, Vec<&str>) = servers.into_iter().unzip();
        parts.hosts = names.join(",");
        if numbers.iter().any(|number| !number.is_empty()) {
            parts.ports = numbers.join(",");
        }
    }
    Some(parts)
}

/// Splits a host from its port. A port that is no number is the end of a password that needs percent-encoding, so the URL is
/// refused.
fn host_and_port(server: &str) -> Option<(&str, &str)> {
    let (host, port) = split_port(server)?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((host, port))
}

fn split_port(server: &str) -> Option<(&str, &str)> {
    if let Some(rest) = server.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, "")),
            rest => Some((host, rest.strip_prefix(':')?)),
        };
    }
    match server.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some(parts) => Some(parts),
        None => Some((server, "")),
    }
}
