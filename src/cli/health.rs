//! `worker health`

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::UsageError;
use super::args::parse_duration;
use super::print::print_line;
use crate::sanitize;

/// Where a worker's ops server is if nobody says another address.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9090";
/// The most bytes of an answer that are read.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;
/// The most characters of an answer that are shown.
const MAX_SHOWN_CHARS: usize = 1_000;

/// Ask the worker on this host whether it is alive
///
/// For the health checks of containers, whose images have no other program that could ask. Asks the ops server of a
/// worker that runs with the same settings.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker health
  worker health --ready
  HEALTHCHECK CMD [\"worker\", \"health\"]

Exit codes: 0 it is, 1 it is not, or can't be asked, 2 wrong usage.")]
pub(super) struct HealthArgs {
    /// The address of the worker's ops server. One that stands for all addresses, like 0.0.0.0, is asked on
    /// loopback [default: 127.0.0.1:9090]
    #[arg(long, env = "WORKER_OPS_ADDR", value_name = "ADDRESS")]
    ops_addr: Option<String>,

    /// Ask whether it delivers (/readyz) instead of whether it is alive (/healthz)
    #[arg(long)]
    ready: bool,

    /// How long the answer may take
    #[arg(long, default_value = "4s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    let address = address(args.ops_addr.as_deref().unwrap_or_default())?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let url = format!("http://{address}{path}");
    let asking = tokio::time::timeout(args.timeout, ask(address, path));
    let (status, says) = asking
        .await
        .map_err(|_| {
            let timeout = humantime::format_duration(args.timeout);
            anyhow::anyhow!("{url} has not answered within {timeout}")
        })?
        .with_context(|| format!("{url} can't be asked"))?;
    let says = shown(&says);
    if status != StatusCode::OK {
        bail!("{url} answers {}: {says}", status.as_u16());
    }
    print_line(says)?;
    Ok(())
}

/// The address to ask, for the one that the server listens on.
fn address(given: &str) -> Result<SocketAddr, UsageError> {
    let given = if given.is_empty() {
        DEFAULT_ADDRESS
    } else {
        given
    };
    if given == "off" {
        return Err(UsageError(
            "WORKER_OPS_ADDR is `off`: a worker without an ops server can't be asked".into(),
        ));
    }
    let mut address: SocketAddr = given.parse().map_err(|_| {
        UsageError(
            "WORKER_OPS_ADDR is no address: write an IP address and a port, like 127.0.0.1:9090"
                .into(),
        )
    })?;
    if address.port() == 0 {
        return Err(UsageError(
            "WORKER_OPS_ADDR has port 0: give the port that the worker has logged".into(),
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, and what goes wrong with it is told to the sender.
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_RESPONSE_BYTES)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("its answer breaks off or has no end: {error}"))?;
    Ok((head.status, body.to_bytes()))
}

/// An answer on one line.
fn shown(answer: &[u8]) -> String {
    let answer = String::from_utf8_lossy(answer);
    let lines: Vec<_> = answer
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    sanitize::text(&lines.join("; "), MAX_SHOWN_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_asked_on_loopback() {
        for (given, asked) in [
            ("", "127.0.0.1:9090"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(
                address(given).map(|address| address.to_string()).ok(),
                Some(asked.into())
            );
        }
    }

    #[test]
    fn an_answer_is_shown_on_one_line_and_with_an_end() {
        assert_eq!(
            shown(b"ok   database\n\nFAIL lanes: \x1b[1mno\n"),
            "ok   database; FAIL lanes: [1mno"
        );
        assert_eq!(
            shown(&[b'x'; MAX_RESPONSE_BYTES]).chars().count(),
            MAX_SHOWN_CHARS
        );
    }
}
