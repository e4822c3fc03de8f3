//! The HTTP server for operators and monitoring. It serves connections until the worker has ended.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use clap::Args;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::OpsToken;
use super::{OpsState, metrics, router};
use crate::config::UsageError;
use crate::secret::{self, SecretError};

const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
const MAX_CONNECTIONS: usize = 64;
/// Also the longest time that a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may take for its last response after the stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Without an upkeep, the exporter would keep each observation of a histogram in memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Without a pause, a lack of file descriptors would cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Ops server")]
pub(crate) struct OpsArgs {
    /// The address of health, metrics and the dashboard, or `off`. With port 0, the worker takes a free port and logs it.
    /// An address beyond loopback needs a token [default: 127.0.0.1:9090, if it is free]
    #[arg(long, env = "WORKER_OPS_ADDR", value_name = "ADDRESS")]
    ops_addr: Option<String>,

    /// A file with the token for metrics and the dashboard. The worker reads the file again when it changes
    #[arg(long, env = "WORKER_OPS_TOKEN_FILE", value_name = "FILE")]
    ops_token_file: Option<PathBuf>,
}

/// Serves nothing by default.
#[derive(Debug, Default)]
pub(crate) struct OpsServer {
    pub(crate) state: OpsState,
    #[cfg(feature = "dev")]
    pub(crate) address: Option<SocketAddr>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl OpsServer {
    /// Starts the server and the recording of metrics, unless the address is `off`, or the default address is taken, because
    /// several workers may run on one host.
    ///
    /// Fails if the address or the token is invalid, if an explicit address is taken, or if other hosts could send requests
    /// without a token.
    pub(crate) async fn start(args: &OpsArgs, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let address = args.ops_addr.as_deref().and_then(secret::given);
        if address == Some("off") {
            return Ok(Self::default());
        }
        let token_file = args.ops_token_file.as_deref().and_then(secret::given_path);
        let token = token_file.map(OpsToken::in_file).transpose();
        let token = token.map_err(|why| {
            SecretError(format!(
                "the token in WORKER_OPS_TOKEN_FILE is not usable, because {why}: write another one into the file, like the output of `openssl rand -hex 32`"
            ))
        })?;
        let is_explicit = address.is_some();
        let address = address.map_or(Ok(DEFAULT_ADDRESS), str::parse);
        let address = address.map_err(|_| {
            let error = "WORKER_OPS_ADDR is no address: write an IP address and a port, like 127.0.0.1:9090, [::1]:9090 or 0.0.0.0:9090 (port 0 is any free port), or `off`";
            UsageError(error.into())
        })?;
        if token.is_none() && !address.ip().is_loopback() {
            anyhow::bail!(UsageError(format!(
                "WORKER_OPS_ADDR={address} can be reached from other hosts: name a file with a token for them in WORKER_OPS_TOKEN_FILE (--ops-token-file), or use an address of this host alone, like 127.0.0.1:9090"
            )));
        }
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) if is_explicit => {
                anyhow::bail!(UsageError(format!(
                    "the ops server can't listen at {address}: {error}. Set WORKER_OPS_ADDR (--ops-addr) to another address, or to `off`"
                )));
            }
            Err(error) => {
                tracing::warn!(
                    event = "ops_server_skipped",
                    %address,
                    %error,
                    "the ops server can't listen at its default address: the worker runs without it. Set WORKER_OPS_ADDR to another address, or to `off`"
                );
                return Ok(Self::default());
            }
        };
        // With port 0, the system has chosen another port.
        let address = listener.local_addr().unwrap_or(address);
        let metrics =
            metrics::install().map_err(|error| anyhow!("metrics can't be recorded: {error}"))?;
        let state = OpsState {
            shutdown,
            token: token.map(Arc::new),
            metrics: Some(metrics.clone()),
            ..OpsState::default()
        };
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let upkeep = async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                metrics.run_upkeep();
            }
        };
        tasks.spawn(stopping.clone().run_until_cancelled_owned(upkeep));
        let router = router(state.clone());
        tasks.spawn(accept(listener, router, tasks.clone(), stopping.clone()));
        tracing::info!(event = "ops_server_started", %address, "ops server: http://{address}");
        Ok(Self {
            state,
            #[cfg(feature = "dev")]
            address: Some(address),
            stopping,
            tasks,
        })
    }

    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A new connection replaces the oldest one. Otherwise idle clients would keep a health probe out. A limit for each address
/// would not help, because all clients behind a proxy or on this host share one address.
async fn accept(
    listener: TcpListener,
    router: Router,
    tasks: TaskTracker,
    stopping: CancellationToken,
) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let serving = serve(stream, router.clone(), stopping.clone());
        open.push_back(tasks.spawn(serving).abort_handle());
    }
}

/// Serves one connection. Its errors concern only its client, so nothing logs them.
async fn serve(stream: TcpStream, router: Router, stopping: CancellationToken) {
    stream.set_nodelay(true).ok();
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    if stopping.run_until_cancelled(&mut serving).await.is_none() {
        serving.as_mut().graceful_shutdown();
        tokio::time::timeout(CLOSE_TIMEOUT, serving).await.ok();
    }
}
