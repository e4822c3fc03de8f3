//! Optional OpenTelemetry traces, sent to a collector by OTLP over HTTP. The standard OTEL_* variables configure traces, and
//! the SDK reads most of them. Without an endpoint, the worker makes no spans.
//!
//! The SDK keeps spans in a bounded queue and drops spans that do not fit, so a slow collector never delays a send.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::HttpsConnector;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use super::failure_log::FailureLog;
use crate::config::UsageError;
use crate::connector::{Connector, https_connector, is_server};
use crate::error_text::connection_error_text;
use crate::proxy::proxy_of;
use crate::secret;
use crate::tls::tls_config;

/// The default of the OTLP specification.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the last spans to be sent.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

const SERVICE_NAME: &str = "signaling-worker";

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

#[derive(Debug, Clone)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    pub(crate) tracer: SdkTracer,
}

impl Traces {
    /// Returns None if the environment names no endpoint or switches traces off. `instance` is the worker's name.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, because the runtime sends the spans.
    pub(crate) fn from_environment(instance: &str) -> Result<Option<Self>, UsageError> {
        let Some((endpoint, ca_file)) = settings(secret::variable)? else {
            return Ok(None);
        };
        let proxy = proxy_of(&endpoint, secret::variable)?;
        let tls = tls_config(ca_file.as_deref())?.into();
        let connector = https_connector(tls, proxy, EXPORT_TIMEOUT);
        let collector = Collector {
            client: HyperClient::new(connector, EXPORT_TIMEOUT, None),
            runtime: Handle::current(),
            failures: FailureLog::default(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.to_string())
            .with_http_client(collector)
            .build()
            .map_err(|error| UsageError(format!("traces can't be set up: {error}")))?;
        // Attributes of the environment override the worker's.
        let mut resource = Resource::builder_empty()
            .with_service_name(SERVICE_NAME)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .with_detector(Box::new(EnvResourceDetector::new()));
        if let Some(name) = secret::variable("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name(name);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self {
            tracer: provider.tracer(SERVICE_NAME),
            provider,
        }))
    }

    /// The producer's context. Without a valid W3C `traceparent`, the context is empty and begins a new trace.
    pub(crate) fn parent(traceparent: Option<&str>) -> Context {
        let header = traceparent.map(|value| ("traceparent".to_owned(), value.to_owned()));
        let headers: HashMap<_, _> = header.into_iter().collect();
        TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
    }

    /// Sends the last spans. Spans that remain after [`FLUSH_TIMEOUT`] are lost.
    pub(crate) async fn shutdown(self) {
        let flushing =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if !matches!(flushing.await, Ok(Ok(()))) {
            tracing::warn!(
                event = "traces_lost",
                waited = %humantime::format_duration(FLUSH_TIMEOUT),
                "the worker could not send the last traces before its exit, and they are lost; no message is lost"
            );
        }
    }
}

/// A client for the SDK's exporter, whose thread has no runtime of its own.
#[derive(Debug)]
struct Collector {
    client: HyperClient<HttpsConnector<Connector>>,
    runtime: Handle,
    failures: FailureLog,
}

impl Collector {
    fn observe(&self, failure: Option<String>) {
        match failure {
            None if self.failures.succeeded() => tracing::info!(
                event = "collector_restored",
                "the collector accepts traces again"
            ),
            Some(error) if self.failures.failed() => tracing::warn!(
                event = "collector_failed",
                error,
                "the worker can't send traces, and drops them until the collector accepts them: check OTEL_EXPORTER_OTLP_ENDPOINT and the collector. Deliveries do not depend on it"
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
            Err(error) => Some(connection_error_text(&**error, CERTIFICATE)),
        });
        result
    }
}

/// The endpoint and the file of certificates, from the variables that the SDK does not read itself.
fn settings(
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<(Uri, Option<PathBuf>)>, UsageError> {
    let is_set_to =
        |name, value: &str| get(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    if is_set_to("OTEL_SDK_DISABLED", "true") || is_set_to("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let (variable, endpoint) = match (get(TRACES_ENDPOINT), get(ENDPOINT)) {
        (Some(endpoint), _) => (TRACES_ENDPOINT, endpoint),
        // By the specification, this endpoint serves all signals, and each signal appends its path.
        (None, Some(all)) => (ENDPOINT, format!("{}/v1/traces", all.trim_end_matches('/'))),
        (None, None) => return Ok(None),
    };
    let of_traces = |name: &str| {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
        let mut names = names.map(|prefix| format!("{prefix}{name}")).into_iter();
        names.find_map(|name| Some((get(&name)?, name)))
    };
    if let Some((protocol, variable)) = of_traces("PROTOCOL")
        && protocol != "http/protobuf"
    {
        return Err(UsageError(format!(
            "{variable} is not http/protobuf, the only supported protocol: set it to http/protobuf, and {ENDPOINT} to the collector's port for that protocol, usually 4318"
        )));
    }
    // The error does not show the endpoint, because it may contain a password.
    let endpoint = endpoint.parse().ok().filter(is_server).ok_or_else(|| {
        UsageError(format!(
            "{variable} is not the URL of a collector: write it like http://localhost:4318, with user names and passwords in OTEL_EXPORTER_OTLP_HEADERS, or leave it out for no traces"
        ))
    })?;
    let ca_file = of_traces("CERTIFICATE").map(|(path, _)| PathBuf::from(path));
    Ok(Some((endpoint, ca_file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<(Uri, Option<PathBuf>)>, UsageError> {
        settings(|name| {
            let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn traces_need_an_endpoint_and_can_be_switched_off() {
        let endpoint = (ENDPOINT, "http://localhost:4318");
        assert_eq!(read(&[]).ok(), Some(None));
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "shop")]).ok(), Some(None));
        assert!(matches!(read(&[endpoint]), Ok(Some(_))));
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(read(&[endpoint, off]).ok(), Some(None));
        }
    }

    #[test]
    fn only_the_endpoint_of_all_signals_gets_the_path_of_traces() {
        for (variable, given, endpoint) in [
            (ENDPOINT, "http://a:4318", "http://a:4318/v1/traces"),
            (ENDPOINT, "https://a/otlp/", "https://a/otlp/v1/traces"),
            (TRACES_ENDPOINT, "http://a:4318/in", "http://a:4318/in"),
        ] {
            let (found, _) = read(&[(variable, given)]).expect("right").expect("on");
            assert_eq!(found, endpoint);
        }
    }

    #[test]
    fn an_error_in_the_settings_does_not_show_the_endpoint() {
        for endpoint in [
            "localhost:4318",
            "http://",
            "ftp://secret",
            "http://user:secret@host:4318",
            "a secret",
        ] {
            let error = read(&[(ENDPOINT, endpoint)]).expect_err(endpoint);
            let text = error.to_string();
            assert!(
                text.contains(ENDPOINT) && !text.contains("secret"),
                "{text}"
            );
        }
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let endpoint = (ENDPOINT, "http://localhost:4318");
        assert!(read(&[endpoint, grpc]).is_err());
        let http = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(read(&[endpoint, grpc, http]).is_ok());
    }
}
