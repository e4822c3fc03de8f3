//! Optional OpenTelemetry traces, sent to a collector by OTLP over HTTP. The standard OTEL_* variables configure traces, and
//! the SDK reads most of them. Without an endpoint, the worker makes no spans.
//!
//! The SDK keeps spans in a bounded queue and drops spans that do not fit, so a slow collector never delays a send.

use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::collector::Collector;
use crate::proxy::{InvalidProxy, ProxyVariables};
use crate::secret;

/// How long a shutdown waits for the last spans to be sent.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

const SERVICE_NAME: &str = "signaling-worker";

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// These errors do not show the endpoint, because it may contain a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidTraces {
    #[error(
        "{variable} is not the URL of a collector ({why}): write it like http://localhost:4318, or leave it out for no traces"
    )]
    Endpoint {
        variable: &'static str,
        why: &'static str,
    },
    #[error(
        "{variable} is not http/protobuf, the only supported protocol: set it to http/protobuf, and {ENDPOINT} to the collector's port for that protocol, usually 4318"
    )]
    Protocol { variable: &'static str },
    #[error("traces: {0}")]
    Tls(#[from] crate::tls::InvalidCaFile),
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    #[error("traces can't be set up: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

#[derive(Clone)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// Returns None if the environment names no endpoint or switches traces off. `instance` is the worker's name.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, because the runtime sends the spans.
    pub(crate) fn from_environment(
        instance: &str,
        proxies: &ProxyVariables,
    ) -> Result<Option<Self>, InvalidTraces> {
        let Some(settings) = Settings::read(secret::variable)? else {
            return Ok(None);
        };
        if let Ok(endpoint) = settings.endpoint.parse() {
            proxies.proxy_of(&endpoint)?;
        }
        let collector = Collector::new(settings.ca_file.as_deref(), proxies.clone())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint)
            .with_http_client(collector)
            .build()?;
        // Attributes of the environment override the worker's.
        let own = Resource::builder_empty().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        let environment = Resource::builder().build();
        let mut resource = own.with_attributes(
            environment
                .iter()
                .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
        );
        // Without a name in the environment, the SDK uses `unknown_service:` and the name of the executable.
        let name = environment.get(&Key::from_static_str("service.name"));
        if name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
            resource = resource.with_service_name(SERVICE_NAME);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self {
            tracer: provider.tracer(SERVICE_NAME),
            propagator: TraceContextPropagator::new(),
            provider,
        }))
    }

    pub(crate) fn tracer(&self) -> &SdkTracer {
        &self.tracer
    }

    /// The producer's context. Without a valid W3C `traceparent`, the context is empty and begins a new trace.
    pub(crate) fn parent(&self, traceparent: Option<&str>) -> Context {
        match traceparent {
            Some(traceparent) => self
                .propagator
                .extract_with_context(&Context::new(), &Traceparent(traceparent)),
            None => Context::new(),
        }
    }

    /// Sends the last spans. Spans that remain after [`FLUSH_TIMEOUT`] are lost.
    pub(crate) async fn shutdown(self) {
        let flushing =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if !matches!(flushing.await, Ok(Ok(()))) {
            tracing::warn!(
                event = "traces_lost",
                waited = %humantime::format_duration(FLUSH_TIMEOUT),
                "the last traces could not be sent and are lost; no message is lost"
            );
        }
    }
}

impl Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

/// The variables that the SDK does not read itself.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    endpoint: String,
    ca_file: Option<PathBuf>,
}

impl Settings {
    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, InvalidTraces> {
        let is_set_to =
            |name, value: &str| get(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
        if is_set_to("OTEL_SDK_DISABLED", "true") || is_set_to("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let (variable, endpoint) = match (get(TRACES_ENDPOINT), get(ENDPOINT)) {
            (Some(endpoint), _) => (TRACES_ENDPOINT, endpoint),
            // The standard says that this endpoint serves all signals, and that each signal appends its path.
            (None, Some(endpoint)) => (
                ENDPOINT,
                format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            ),
            (None, None) => return Ok(None),
        };
        check_endpoint(&endpoint).map_err(|why| InvalidTraces::Endpoint { variable, why })?;
        for variable in [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ] {
            match get(variable).as_deref() {
                None => {}
                Some("http/protobuf") => break,
                Some(_) => return Err(InvalidTraces::Protocol { variable }),
            }
        }
        Ok(Some(Self {
            endpoint,
            ca_file: get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
                .or_else(|| get("OTEL_EXPORTER_OTLP_CERTIFICATE"))
                .map(PathBuf::from),
        }))
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let uri: Uri = endpoint.parse().map_err(|_| "it can't be read")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it does not begin with http:// or https://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("it contains a user name or a password: move them to OTEL_EXPORTER_OTLP_HEADERS")
        }
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err("it names no host"),
    }
}

/// The one header that the column holds.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, InvalidTraces> {
        Settings::read(|name| {
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
            let settings = read(&[(variable, given)]).expect("right").expect("on");
            assert_eq!(settings.endpoint, endpoint);
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
        assert!(matches!(
            read(&[endpoint, grpc]),
            Err(InvalidTraces::Protocol { .. })
        ));
        let http = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(read(&[endpoint, grpc, http]).is_ok());
    }
}
