//! Arguments of the ops server.

use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::ops::{OpsError, OpsServer};
use crate::secret;

#[derive(Debug, Args)]
#[command(next_help_heading = "Ops server")]
pub(super) struct OpsArgs {
    /// The address of health, metrics and the dashboard, or `off`. With port 0, the worker takes a free port and logs it.
    /// An address beyond loopback needs a token [default: 127.0.0.1:9090, if it is free]
    #[arg(long, env = "WORKER_OPS_ADDR", value_name = "ADDRESS")]
    ops_addr: Option<String>,

    /// A file with the token for metrics and the dashboard. The worker reads the file again when it changes
    #[arg(long, env = "WORKER_OPS_TOKEN_FILE", value_name = "FILE")]
    ops_token_file: Option<PathBuf>,
}

impl OpsArgs {
    /// Returns None if the server is off.
    pub(super) async fn start(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<OpsServer>, OpsError> {
        let token_file = self.ops_token_file.as_deref().and_then(secret::given_path);
        let address = self.ops_addr.as_deref().and_then(secret::given);
        OpsServer::start(address, token_file, shutdown.clone()).await
    }
}
