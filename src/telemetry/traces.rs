//! Traces, on request: OpenTelemetry spans to a collector, by OTLP over HTTP. The standard variables switch them on and
//! say how, and the SDK reads most of them itself; without an endpoint there is nothing here.
//!
//! Nobody waits for a collector: spans go into a bounded queue, and those that don't fit are dropped.

use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::collector::Collector;
use crate::proxy::{InvalidProxy, ProxyVariables};
use crate::secret;

/// How long a shutdown waits for the last spans to be sent.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// What the spans of this program go by, unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE_NAME: &str = "signaling-worker";

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// Why traces can't be set up. The endpoint is not shown: it may have a password in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidTraces {
    /// The endpoint is no URL of a collector.
    #[error(
        "{variable} is not the URL of a collector ({why}): write it like http://localhost:4318, or leave it out for no traces"
    )]
    Endpoint {
        /// The variable that names it.
        variable: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    #[error(
        "{variable} asks for another protocol than http/protobuf, the only one that traces are sent by: set it to that, and {ENDPOINT} to the collector's port for it, usually 4318"
    )]
    Protocol {
        /// The variable that asks for it.
        variable: &'static str,
    },
    /// The certificates to trust can't be used.
    #[error("traces: {0}")]
    Tls(#[from] crate::tls::InvalidCaFile),
    /// The exporter can't be made.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    #[error("traces can't be set up: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Where spans go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// What the environment asks for; none if it names no endpoint, or has traces switched off. `instance` is this
    /// process's name. Within a runtime: it is what sends the spans.
    ///
    /// # Errors
    /// Where the environment asks for something that is not to be had.
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
        // The environment's own attributes go over these, but for the name, which it has only if it gives one.
        let named = Resource::builder_empty().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        let environment = Resource::builder().build();
        let mut resource = named.with_attributes(
            environment
                .iter()
                .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
        );
        if !settings.has_service_name {
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

    /// A producer's context, from its W3C `traceparent`; an empty one, which begins a new trace, without a valid one.
    pub(crate) fn parent(&self, traceparent: Option<&str>) -> Context {
        match traceparent {
            Some(traceparent) => self
                .propagator
                .extract_with_context(&Context::new(), &Traceparent(traceparent)),
            None => Context::new(),
        }
    }

    /// Sends what is left, for [`FLUSH_TIMEOUT`] at most; what is not sent then is lost.
    pub(crate) async fn shutdown(self) {
        let flushing =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        if !matches!(flushing.await, Ok(Ok(()))) {
            tracing::warn!(
                event = "traces_lost",
                waited = %humantime::format_duration(FLUSH_TIMEOUT),
                "the last traces could not be sent: they are lost, the messages are not"
            );
        }
    }
}

impl Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

/// What is read here and not by the SDK.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    endpoint: String,
    ca_file: Option<PathBuf>,
    has_service_name: bool,
}

impl Settings {
    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, InvalidTraces> {
        let says = |name, value: &str| get(name).is_some_and(|it| it.eq_ignore_ascii_case(value));
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let (variable, endpoint) = match (get(TRACES_ENDPOINT), get(ENDPOINT)) {
            (Some(endpoint), _) => (TRACES_ENDPOINT, endpoint),
            // By the standard, this one is for all signals, and each adds its path.
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
            has_service_name: get("OTEL_SERVICE_NAME").is_some()
                || get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| {
                    attributes
                        .split(',')
                        .any(|attribute| attribute.trim_start().starts_with("service.name="))
                }),
        }))
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let uri: Uri = endpoint.parse().map_err(|_| "it can't be read")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it does not begin with http:// or https://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(
            "it has a user name or password in it, which belong into OTEL_EXPORTER_OTLP_HEADERS",
        ),
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
    fn traces_are_off_until_an_endpoint_is_named_and_can_be_switched_off_again() {
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
    fn the_endpoint_of_all_signals_gets_the_path_of_traces_and_that_of_traces_does_not() {
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
    fn what_is_wrong_with_the_settings_is_told_without_the_endpoint() {
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
        let ours = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(read(&[endpoint, grpc, ours]).is_ok());
    }
}
