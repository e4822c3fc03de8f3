//! A collector of traces.

use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use tokio::net::TcpListener;

/// The behaviour of a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    Takes,
    Refuses,
    /// The collector reads the request and never responds.
    Hangs,
    /// The collector does not listen.
    Away,
}

pub(super) struct Collector {
    pub(super) url: String,
    state: Arc<Mutex<(Conduct, Seen)>>,
}

/// The accepted requests.
#[derive(Clone, Default)]
pub(super) struct Seen {
    headers: HeaderMap,
    bodies: Vec<Bytes>,
}

/// A span with attributes as text.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) trace_id: String,
    /// Empty in the root span of a trace.
    pub(super) parent: String,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    /// The message of an error status.
    pub(super) error: Option<String>,
    attributes: BTreeMap<String, String>,
}

impl Collector {
    pub(super) async fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new((conduct, Seen::default())));
        if conduct != Conduct::Away {
            let router = Router::new()
                .route("/v1/traces", post(take))
                .with_state(Arc::clone(&state));
            tokio::spawn(serve(listener, router));
        }
        Self { url, state }
    }

    pub(super) fn conduct(&self, conduct: Conduct) {
        self.state.lock().expect("whole").0 = conduct;
    }

    pub(super) fn seen(&self) -> Seen {
        self.state.lock().expect("whole").1.clone()
    }
}

async fn serve(listener: TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { connection.await.ok() });
    }
}

async fn take(
    State(state): State<Arc<Mutex<(Conduct, Seen)>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let conduct = state.lock().expect("whole").0;
    match conduct {
        Conduct::Takes => {
            let seen = &mut state.lock().expect("whole").1;
            seen.headers = headers;
            seen.bodies.push(body);
            StatusCode::OK
        }
        Conduct::Refuses => StatusCode::FORBIDDEN,
        Conduct::Hangs | Conduct::Away => std::future::pending().await,
    }
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    /// True if a header or a body contains a text.
    pub(super) fn has(&self, text: &str) -> bool {
        let in_headers = format!("{:?}", self.headers).contains(text);
        let is_in = |body: &Bytes| body.windows(text.len()).any(|part| part == text.as_bytes());
        in_headers || self.bodies.iter().any(is_in)
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()).expect("OTLP"))
            .collect()
    }

    pub(super) fn resource(&self) -> BTreeMap<String, String> {
        let requests = self.requests();
        let first = requests.first().expect("a request");
        let resource = first.resource_spans[0].resource.as_ref();
        texts(&resource.expect("a resource").attributes)
    }

    /// All spans, sorted by start.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<_> = self
            .requests()
            .into_iter()
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .map(|span| Span {
                kind: match span.kind() {
                    SpanKind::Consumer => "CONSUMER",
                    SpanKind::Client => "CLIENT",
                    _ => "another",
                },
                trace_id: hex(&span.trace_id),
                parent: hex(&span.parent_span_id),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                error: span
                    .status
                    .filter(|status| status.code() == SpanStatus::Error)
                    .map(|status| status.message),
                attributes: texts(&span.attributes),
                name: span.name,
            })
            .collect();
        spans.sort_by_key(|span| span.start_ns);
        spans
    }
}

impl Span {
    pub(super) fn get(&self, attribute: &str) -> Option<&String> {
        self.attributes.get(attribute)
    }
}

impl Index<&str> for Span {
    type Output = String;

    fn index(&self, attribute: &str) -> &String {
        self.get(attribute)
            .unwrap_or_else(|| panic!("no {attribute} in {self:#?}"))
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = match attribute.value.as_ref().and_then(|it| it.value.as_ref()) {
                Some(Value::StringValue(text)) => text.clone(),
                Some(Value::IntValue(number)) => number.to_string(),
                Some(Value::DoubleValue(number)) => number.to_string(),
                other => panic!("an attribute of another type: {other:?}"),
            };
            (attribute.key.clone(), value)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
