//! `worker health`

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::print::{one_line, print_line};
use crate::secret;

const DEFAULT_ADDRESS: &str = "127.0.0.1:9090";
const MAX_RESPONSE_BYTES: usize = 16 * 1024;
const TIMEOUT: Duration = Duration::from_secs(4);

/// Ask the worker on this host whether it is alive
///
/// For health checks in containers whose image has no HTTP client. Sends a request to the ops server of a worker with the
/// same settings.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker health
  worker health --ready
  HEALTHCHECK CMD [\"worker\", \"health\"]

Exit codes: 0 alive (or ready), 1 not alive, not ready or unreachable, 2 wrong usage.")]
pub(super) struct HealthArgs {
    /// The address of the worker's ops server
    #[arg(long, env = "WORKER_OPS_ADDR", value_name = "ADDRESS", default_value = DEFAULT_ADDRESS, value_parser = parse_address)]
    ops_addr: SocketAddr,

    /// Ask whether the worker can send (/readyz) instead of whether it is alive (/healthz). A paused or held app does not
    /// make the worker unready
    #[arg(long)]
    ready: bool,
}

pub(super) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let url = format!("http://{}{path}", args.ops_addr);
    let (status, body) = tokio::time::timeout(TIMEOUT, get(&url))
        .await
        .with_context(|| format!("{url} has not answered within {TIMEOUT:?}"))?
        .with_context(|| format!("{url} can't be reached"))?;
    let body = String::from_utf8_lossy(&body);
    let text = one_line(&body.trim_end().replace('\n', "; "));
    ensure!(
        status == StatusCode::OK,
        "{url} answers {}: {text}",
        status.as_u16()
    );
    print_line(text)
}

/// An empty flag means the default address.
fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    let address = secret::given(text).unwrap_or(DEFAULT_ADDRESS).parse().ok();
    address
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or("give the address of the worker's ops server, an IP address and a port like 127.0.0.1:9090; the worker logs a free port that it took for port 0")
}

async fn get(url: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let (head, body) = client.get(url.parse()?).await?.into_parts();
    let body = Limited::new(body, MAX_RESPONSE_BYTES)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the response is too long or ended early: {error}"))?;
    Ok((head.status, body.to_bytes()))
}
