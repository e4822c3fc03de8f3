//! The way to the collector of traces, with the worker's own TLS, and the log of a collector that is unavailable.

use std::path::Path;
use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::proxy::matcher::Intercept;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use crate::config::UsageError;
use crate::connector::{Connector, https_connector};
use crate::error_text::connection_error_text;
use crate::telemetry::failure_log::FailureLog;
use crate::tls::tls_config;

/// The default of the OTLP standard.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client for the SDK's exporter, whose thread has no runtime of its own.
#[derive(Debug)]
pub(super) struct Collector {
    client: HyperClient<HttpsConnector<Connector>>,
    runtime: Handle,
    failures: FailureLog,
}

impl Collector {
    /// # Errors
    /// If the certificates can't be used.
    pub(super) fn new(
        ca_file: Option<&Path>,
        proxy: Option<Intercept>,
    ) -> Result<Self, UsageError> {
        let connector = https_connector(tls_config(ca_file)?.into(), proxy, TIMEOUT);
        Ok(Self {
            client: HyperClient::new(connector, TIMEOUT, None),
            runtime: Handle::current(),
            failures: FailureLog::default(),
        })
    }

    /// Logs the first failure, and the first success after it.
    fn observe(&self, failure: Option<String>) {
        match failure {
            None if self.failures.succeeded() => tracing::info!(
                event = "collector_restored",
                "the collector takes traces again"
            ),
            Some(error) if self.failures.failed() => tracing::warn!(
                event = "collector_failed",
                error,
                "traces can't be sent: they are dropped until the collector takes them. The sending of messages does not depend on the collector"
            ),
            _ => {}
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
        let result = sending.await?;
        self.observe(match &result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!(
                "the collector answers HTTP {}",
                response.status().as_u16()
            )),
            Err(error) => Some(connection_error_text(
                &**error,
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
            )),
        });
        result
    }
}
