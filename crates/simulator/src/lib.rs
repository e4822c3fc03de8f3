//! The simulated API: the two endpoints of the Signaling Messaging REST API with their strict limit of calls a second,
//! fault injection, and a [`Ledger`] of every call.
//!
//! Tests and `worker dev` run it in their own process; `worker simulate` runs it alone.
//!
//! ```
//! # async fn example() -> anyhow::Result<()> {
//! use simulator::{Simulator, SimulatorConfig};
//!
//! let simulator = Simulator::start(SimulatorConfig::default()).await?;
//! println!("{}/dev/v2/project/…", simulator.base_url());
//! println!("{:?}", simulator.ledger().summary());
//! simulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod api;
mod auth;
mod behaviour;
mod call;
pub mod cli;
mod control;
mod faults;
mod ledger;
mod limit;
mod request;
mod response;
mod server;
mod summary;
#[cfg(test)]
mod tests;
mod token;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::api::ApiState;
pub use self::auth::{ApiKey, Credentials, GivenToken};
pub use self::behaviour::Behaviour;
pub use self::call::{Call, CallKind};
use self::faults::Faults;
pub use self::faults::{Fault, FaultRule};
pub use self::ledger::Ledger;
pub use self::server::TlsFiles;
pub use self::summary::{AppSummary, Summary};

#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// The address to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// The ledger of an earlier simulator, to be continued.
    pub ledger: Option<Arc<Ledger>>,
    /// The seed of the random numbers for faults and jitter.
    pub seed: u64,
    pub faults: Vec<FaultRule>,
    pub behaviour: Behaviour,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            ledger: None,
            seed: 0,
            faults: Vec::new(),
            behaviour: Behaviour::default(),
        }
    }
}

/// A running simulated API. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    is_tls: bool,
    api: Arc<ApiState>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Listens, and serves in the background.
    ///
    /// # Errors
    /// If the address, the TLS files or the settings can't be used.
    #[allow(clippy::unused_async)] // Listening needs a Tokio runtime.
    pub async fn start(config: SimulatorConfig) -> anyhow::Result<Self> {
        config.behaviour.check()?;
        config.faults.iter().try_for_each(FaultRule::check)?;
        let tls = config.tls.as_ref().map(server::tls_acceptor).transpose()?;
        let is_tls = tls.is_some();
        let bind = config.bind;
        let listener = server::bind(bind)
            .with_context(|| format!("can't listen on {bind}; is another program using it?"))?;
        let address = listener.local_addr()?;

        let api = Arc::new(ApiState::new(
            config.ledger.unwrap_or_default(),
            config.behaviour,
            Faults::new(config.faults, config.seed),
        ));
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::serve(
            listener,
            tls,
            router(Arc::clone(&api)),
            Arc::clone(&api),
            stopping.clone(),
            tasks.clone(),
        ));
        Ok(Self {
            address,
            is_tls,
            api,
            stopping,
            tasks,
        })
    }

    /// The address of the listener. After a stop, another simulator can start there.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that replaces `https://api.agora.io`.
    pub fn base_url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.api.ledger
    }

    /// The fault rules with their remaining counts.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.api.faults().rules.clone()
    }

    /// Replaces the fault rules.
    ///
    /// # Errors
    /// If a rule is invalid. The old rules stay then.
    pub fn set_faults(&self, rules: Vec<FaultRule>) -> anyhow::Result<()> {
        rules.iter().try_for_each(FaultRule::check)?;
        self.api.faults().rules = rules;
        Ok(())
    }

    pub fn config(&self) -> Behaviour {
        Behaviour::clone(&self.api.behaviour())
    }

    /// Changes the behaviour for calls that arrive from now on.
    ///
    /// # Errors
    /// If `retry_after` is not a valid header. The old behaviour stays then.
    pub fn set_config(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        behaviour.check()?;
        *self.api.behaviour() = Arc::new(behaviour);
        Ok(())
    }

    /// Closes the listener and every connection, and waits until they are closed. Open calls get no response.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn router(api: Arc<ApiState>) -> Router {
    let unknown = async |State(api): State<Arc<ApiState>>, uri: Uri, status| {
        if !control::is_control(uri.path()) {
            api.ledger.add_unknown_request();
        }
        api::unknown(status)
    };
    api::routes()
        .fallback(move |state, uri| unknown(state, uri, StatusCode::NOT_FOUND))
        .merge(control::routes())
        .method_not_allowed_fallback(move |state, uri| {
            unknown(state, uri, StatusCode::METHOD_NOT_ALLOWED)
        })
        .with_state(api)
}
