//! The simulated API: the two endpoints of the Signaling Messaging REST API, with its strict limit of calls per second,
//! faults on demand, and a [`Ledger`] of every call.
//!
//! Tests and `worker dev` run it in their own process, `worker simulate` alone:
//!
//! ```
//! # async fn example() -> Result<(), simulator::SimulatorError> {
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
mod api_state;
mod auth;
mod behaviour;
mod call;
pub mod cli;
mod control;
mod fault_text;
mod faults;
mod ledger;
mod ledger_state;
mod limit;
mod request;
mod response;
mod server;
mod summary;
mod token;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::api_state::ApiState;
pub use self::auth::{ApiKey, Credentials, GivenToken};
pub use self::behaviour::Behaviour;
pub use self::call::{Call, CallKind};
use self::faults::Faults;
pub use self::faults::{Fault, FaultError, FaultRule};
pub use self::ledger::{Ledger, WaitTimedOut};
pub use self::server::TlsFiles;
pub use self::summary::{AppSummary, Summary};

/// What a simulator is started with.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// The address to listen on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Serve over TLS with these files.
    pub tls: Option<TlsFiles>,
    /// Go on with the ledger of another simulator.
    pub ledger: Option<Arc<Ledger>>,
    /// The seed of the dice that faults and jitter throw.
    pub seed: u64,
    pub faults: Vec<FaultRule>,
    /// How the API behaves at first.
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

/// Why a simulator can't be started or changed.
#[derive(Debug, Error)]
pub enum SimulatorError {
    /// The address can't be listened on.
    #[error("can't listen on {address}; is something else using it?")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    /// A certificate or key can't be read.
    #[error("can't read {}", path.display())]
    TlsFile {
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key can't be used.
    #[error("can't serve TLS with this certificate and key")]
    Tls(#[from] rustls::Error),
    /// A fault rule can't be done.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The `Retry-After` value is no header.
    #[error("`{0}` can't be sent as Retry-After: write seconds or an HTTP date")]
    RetryAfter(String),
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
    /// Listens and serves in the background.
    ///
    /// # Errors
    /// [`SimulatorError`] when the address, the TLS files or the settings can't be used.
    #[allow(clippy::unused_async)] // Binding needs a runtime, and callers should not have to know that.
    pub async fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        config.behaviour.check()?;
        check_faults(&config.faults)?;
        let tls = config.tls.as_ref().map(server::tls_acceptor).transpose()?;
        let not_bound = |source| SimulatorError::Bind {
            address: config.bind,
            source,
        };
        let listener = server::bind(config.bind).map_err(not_bound)?;
        let address = listener.local_addr().map_err(not_bound)?;

        let is_tls = tls.is_some();
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

    /// The address it listens on, also after it was stopped: a next one can be started there.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stands in the place of `https://api.agora.io`.
    pub fn base_url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.api.ledger
    }

    /// The fault rules, with what is left of their counts.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.api.faults().rules().to_vec()
    }

    /// Puts these fault rules in the place of those before.
    ///
    /// # Errors
    /// [`FaultError`] when one can't be done; then nothing changes.
    pub fn set_faults(&self, rules: Vec<FaultRule>) -> Result<(), FaultError> {
        check_faults(&rules)?;
        self.api.faults().replace(rules);
        Ok(())
    }

    /// How the API behaves at present.
    pub fn config(&self) -> Behaviour {
        Behaviour::clone(&self.api.behaviour())
    }

    /// Changes how the API behaves, for calls that arrive from now on.
    ///
    /// # Errors
    /// [`SimulatorError::RetryAfter`] when that value is no header; then nothing changes.
    pub fn set_config(&self, behaviour: Behaviour) -> Result<(), SimulatorError> {
        behaviour.check()?;
        self.api.set_behaviour(behaviour);
        Ok(())
    }

    /// Closes the listener and every connection, and returns when they are closed. Calls under way get no answer.
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
    let stray = async |State(api): State<Arc<ApiState>>, uri: Uri, status| {
        if control::is_control(uri.path()) {
            api::unknown(status)
        } else {
            api::stray(&api, status)
        }
    };
    api::routes()
        .fallback(move |state, uri| stray(state, uri, StatusCode::NOT_FOUND))
        .merge(control::routes())
        .method_not_allowed_fallback(move |state, uri| {
            stray(state, uri, StatusCode::METHOD_NOT_ALLOWED)
        })
        .with_state(api)
}

fn check_faults(rules: &[FaultRule]) -> Result<(), FaultError> {
    rules.iter().try_for_each(FaultRule::check)
}

#[cfg(test)]
mod tests;
