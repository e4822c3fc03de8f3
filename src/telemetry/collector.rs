//! The way to the collector of traces, with the worker's own TLS, and what is said of a collector that is away.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper_rustls::HttpsConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::connector::{Connector, https_connector};
use crate::error_text::connection_error_text;
use crate::proxy::ProxyVariables;
use crate::tls::{InvalidCaFile, tls_config};

/// How long the collector may take for an answer: the standard's default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A collector that comes and goes is told of so often at most.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A client for the SDK's exporter, whose thread has no runtime of its own.
#[derive(Debug)]
pub(super) struct Collector {
    client: HyperClient<HttpsConnector<Connector>>,
    runtime: Handle,
    trouble: Mutex<Trouble>,
}

/// What has been said of it.
#[derive(Debug, Default)]
struct Trouble {
    is_told: bool,
    told_at: Option<Instant>,
}

impl Collector {
    /// A client that trusts these certificates beside the public ones.
    ///
    /// # Errors
    /// Where the certificates can't be used.
    pub(super) fn new(
        ca_file: Option<&Path>,
        proxies: ProxyVariables,
    ) -> Result<Self, InvalidCaFile> {
        let connector = https_connector(tls_config(ca_file)?, proxies, TIMEOUT);
        Ok(Self {
            client: HyperClient::new(connector, TIMEOUT, None),
            runtime: Handle::current(),
            trouble: Mutex::default(),
        })
    }

    /// Says once that it fails, and once that it is back.
    fn tell(&self, failure: Option<String>) {
        let mut trouble = self.trouble.lock();
        match failure {
            Some(error) if !trouble.is_told => {
                if trouble.told_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    *trouble = Trouble {
                        is_told: true,
                        told_at: Some(Instant::now()),
                    };
                    tracing::warn!(
                        event = "collector_failed",
                        error,
                        "traces can't be sent: they are dropped until the collector takes them; messages are delivered all the same"
                    );
                }
            }
            None if trouble.is_told => {
                trouble.is_told = false;
                tracing::info!(
                    event = "collector_restored",
                    "the collector takes traces again"
                );
            }
            Some(_) | None => {}
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self
            .runtime
            .spawn(async move { client.send_bytes(request).await });
        // The runtime is gone only after the end of everything else.
        let result = sending.await?;
        self.tell(match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers HTTP {}", response.status().as_u16())),
            Err(error) => Some(connection_error_text(
                &**error,
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
            )),
        });
        result
    }
}
