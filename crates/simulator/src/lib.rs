//! The simulated API: the two endpoints of the Signaling Messaging REST API with their strict limit of calls a second,
//! fault injection, and a [`Ledger`] of every call.
//!
//! Tests and `worker dev` run it in their own process; `worker simulate` runs it alone.

mod api;
pub mod cli;
mod control;
mod credentials;
mod faults;
mod ledger;
mod request;
mod response;
mod server;
#[cfg(test)]
mod tests;
mod token;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::api::ApiState;
pub use self::credentials::Credential;
pub use self::faults::FaultRule;
pub use self::ledger::{AppSummary, Call, CallKind, Ledger, Summary};
pub use self::server::TlsFiles;

/// JSON may write each byte of a payload of 32 KB as six, and there are other fields.
const MAX_BODY_BYTES: usize = 256 * 1024;

#[derive(Clone)]
pub struct SimulatorConfig {
    /// The address to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// The ledger of an earlier simulator, to be continued.
    pub ledger: Arc<Ledger>,
    pub faults: Vec<FaultRule>,
    pub behaviour: Behaviour,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            ledger: Arc::default(),
            faults: Vec::new(),
            behaviour: Behaviour::default(),
        }
    }
}

/// Properties of the simulated API, apart from faults, that can be changed while it runs.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// The most calls of an app in any sliding second. `None` is no limit.
    pub limit: Option<u32>,
    /// The delay of every response.
    pub latency: Duration,
    /// The API closes a connection after so many milliseconds without a request.
    pub idle_close_ms: Option<u64>,
    /// The API closes each connection after a response, which says `Connection: close`.
    pub closes_connections: bool,
    /// The accepted credentials. Without any, the API accepts every call.
    pub credentials: Vec<Credential>,
}

/// A running simulated API. Dropping it stops it.
pub struct Simulator {
    /// The address of the listener. After a stop, another simulator can start there.
    pub address: SocketAddr,
    is_tls: bool,
    api: Arc<ApiState>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    _stops_when_dropped: DropGuard,
}

impl Simulator {
    /// Listens, and serves in the background.
    ///
    /// # Errors
    /// If the address or the TLS files can't be used.
    pub async fn start(config: SimulatorConfig) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let is_tls = tls.is_some();
        let bind = config.bind;
        let listener = TcpListener::bind(bind)
            .await
            .with_context(|| format!("can't listen on {bind}; is another program using it?"))?;
        let address = listener.local_addr()?;

        let api = Arc::new(ApiState {
            ledger: config.ledger,
            behaviour: Mutex::new(config.behaviour),
            faults: Mutex::new(config.faults),
        });
        let router = Router::new()
            .merge(api::routes())
            .merge(control::routes())
            .fallback(async || api::unknown(StatusCode::NOT_FOUND))
            .method_not_allowed_fallback(async || api::unknown(StatusCode::METHOD_NOT_ALLOWED))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::clone(&api));
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::serve(
            listener,
            tls,
            router,
            Arc::clone(&api),
            stopping.clone(),
            tasks.clone(),
        ));
        Ok(Self {
            address,
            is_tls,
            api,
            _stops_when_dropped: stopping.clone().drop_guard(),
            stopping,
            tasks,
        })
    }

    /// The URL that replaces `https://api.agora.io`.
    pub fn base_url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.api.ledger
    }

    /// The fault rules with their remaining counts, to read or replace.
    pub fn faults(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        self.api.faults.lock()
    }

    /// The behaviour for calls that arrive from now on, to read or change.
    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.api.behaviour.lock()
    }

    /// Closes the listener and every connection, and waits until they are closed. Open calls get no response.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
