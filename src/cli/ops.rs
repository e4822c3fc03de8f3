//! What `worker run` is told of its ops server.

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::ops::{OpsError, OpsServer};
use crate::secret;

/// For people and programs that look after the worker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ops server")]
pub(super) struct OpsArgs {
    /// Where health, metrics and the dashboard are served, or `off`. Port 0 is any that is free: the log says
    /// which. Beyond loopback, a token is needed [default: 127.0.0.1:9090, if it is free]
    #[arg(long, env = "WORKER_OPS_ADDR", value_name = "ADDRESS")]
    ops_addr: Option<String>,

    /// A file with the token that who asks for metrics or the dashboard needs; it is read again when it changes
    #[arg(long, env = "WORKER_OPS_TOKEN_FILE", value_name = "FILE")]
    ops_token_file: Option<PathBuf>,
}

impl OpsArgs {
    /// Starts the server, if there is to be one. An empty variable is a variable that is not set.
    ///
    /// # Errors
    /// Where it can't be as it was asked for.
    pub(super) async fn start(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<OpsServer>, OpsError> {
        let token_file = self.ops_token_file.as_deref().and_then(secret::given_path);
        let address = self.ops_addr.as_deref().and_then(secret::given);
        OpsServer::start(address, token_file, shutdown.clone()).await
    }
}
