//! Traces that a collector receives.

mod collector;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::connect_proxy::ConnectProxy;
use collector::{Collector, Conduct};
use harness::{API_KEY, API_SECRET, PATIENCE, Worker, World, channel, peer};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCER: &str = "b7ad6b7169203331";

/// A worker that exports its spans every 50 ms.
fn traced(world: &World, collector: &Collector) -> Worker {
    world
        .worker()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

#[tokio::test]
async fn each_attempt_of_a_retried_message_is_a_span_in_its_producers_trace() {
    let world = World::new().await;
    let collector = Collector::start(Conduct::Takes).await;
    world.set_faults(&["500:destination=flaky,first_calls=1"]);
    let mut worker = traced(&world, &collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
        .env("WORKER_NAME", "tracer")
        .start();
    // The worker charges the failed attempt because the API accepts this message. An unsampled message has no span.
    let unsampled = format!("00-{TRACE}-{PRODUCER}-00");
    world.deliver(json!({"traceparent": unsampled})).await;
    let traceparent = format!("00-{TRACE}-{PRODUCER}-01");
    let message = json!({"destination": "flaky", "traceparent": traceparent});
    let (id, row) = world.deliver(message).await;
    worker.stop().await;

    let seen = collector.seen();
    assert_eq!(seen.header("x-tenant").as_deref(), Some("shop"));
    let resource = seen.resource();
    assert_eq!(resource["service.name"], "signaling-worker");
    assert_eq!(resource["service.instance.id"], "tracer");
    let spans = seen.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let api = world.simulator.address;
    for (number, span) in (1..).zip(&spans) {
        assert_eq!((&*span.trace_id, &*span.parent), (TRACE, PRODUCER));
        assert_eq!((&*span.name, span.kind), ("deliver default", "CLIENT"));
        assert_eq!(span["signaling.app"], "default");
        assert_eq!(span["messaging.message.id"], id.to_string());
        assert_eq!(span["signaling.destination.kind"], "peer");
        assert_eq!(span["signaling.attempt"], number.to_string());
        assert_eq!(span["signaling.claimed_by"], "tracer");
        assert_eq!(span["http.request.method"], "POST");
        assert_eq!(span["server.address"], api.ip().to_string());
        assert_eq!(span["server.port"], api.port().to_string());
        assert!(span.start_ns < span.end_ns);
        let (status, outcome, error) = if number == 1 {
            ("500", "transient", Some("transient"))
        } else {
            ("200", "accepted", None)
        };
        assert_eq!(span["http.response.status_code"], status);
        assert_eq!(span["signaling.outcome"], outcome);
        assert_eq!(span.error.as_deref(), error);
    }
    // The first attempt has the queue wait, and the last one has the final status.
    assert!(spans[0]["signaling.queue_wait_s"].parse::<f64>().is_ok());
    assert!(spans[1].get("signaling.queue_wait_s").is_none());
    assert!(spans[0].get("signaling.status").is_none());
    assert_eq!(spans[1]["signaling.status"], "message_sent");
    // Span and row have the same times.
    let sent_at = row.sent_at.expect("it was called").unix_timestamp_nanos();
    assert_eq!(i128::from(spans[1].start_ns), sent_at);
    let request_id = row.request_id.expect("accepted");
    assert_eq!(spans[1]["signaling.request_id"], request_id);
}

#[tokio::test]
async fn an_attempt_without_traceparent_starts_a_trace_and_unsampled_has_none() {
    let world = World::new().await;
    let collector = Collector::start(Conduct::Takes).await;
    let unsampled = format!("00-{TRACE}-{PRODUCER}-00");
    for traceparent in [None, Some("not a traceparent"), Some(&unsampled)] {
        let message = channel(json!({"traceparent": traceparent}));
        world.insert(message).await;
    }
    let mut worker = traced(&world, &collector)
        .env("OTEL_SERVICE_NAME", "shop-messages")
        .start();
    world.until_all_final().await;
    worker.stop().await;

    let seen = collector.seen();
    assert_eq!(seen.resource()["service.name"], "shop-messages");
    let spans = seen.spans();
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!((roots.len(), spans.len()), (2, 2), "{spans:#?}");
    assert_ne!(roots[0].trace_id, roots[1].trace_id);
    assert!(spans.iter().all(|span| span.trace_id != TRACE));
    for root in roots {
        assert_eq!(root["signaling.destination.kind"], "channel");
    }
}

#[tokio::test]
async fn a_message_that_ends_without_a_call_is_a_span_without_a_server() {
    let world = World::new().await;
    let collector = Collector::start(Conduct::Takes).await;
    // A worker with a token of one user can't send for another.
    let id = world.insert(peer(json!({"sender": "mallory"}))).await;
    let mut worker = world
        .worker_without_app()
        .env("AGORA_APP_ID", "app")
        .env("AGORA_TOKEN", "token-of-alice")
        .env("AGORA_UID", "alice")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .start();
    assert_eq!(world.until_final(id).await.status, "failed");
    worker.stop().await;

    let spans = collector.seen().spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert_eq!(spans[0]["signaling.status"], "failed");
    assert!(spans[0].get("server.address").is_none());
    assert_eq!(spans[0].error.as_deref(), Some("failed"));
}

#[tokio::test]
async fn traces_contain_no_payload_user_or_secret() {
    const PAYLOAD: &str = "payload-7364528190";
    const SENDER: &str = "sender-8273645190";
    const RECEIVER: &str = "receiver-9182736450";
    const CHANNEL: &str = "channel-1928374650";
    let world = World::new().await;
    let collector = Collector::start(Conduct::Takes).await;
    let said = json!({"result": "failed", "code": RECEIVER, "reason": format!("{SENDER} can't send {PAYLOAD}")});
    world.set_faults(&[
        "429:count=1",
        "hang:count=1",
        "drop:count=1",
        &format!("400:count=1,body={said}"),
    ]);
    for _ in 0..5 {
        let peer = peer(json!({"sender": SENDER, "destination": RECEIVER, "payload": PAYLOAD}));
        world.insert(peer).await;
        let message =
            channel(json!({"sender": SENDER, "channel_name": CHANNEL, "payload": PAYLOAD}));
        world.insert(message).await;
    }
    let mut worker = traced(&world, &collector)
        .env("WORKER_REQUEST_TIMEOUT", "500ms")
        .start();
    world.until_all_final().await;
    worker.stop().await;

    let seen = collector.seen();
    assert!(seen.spans().len() >= 10, "{:#?}", seen.spans());
    for marker in [PAYLOAD, SENDER, RECEIVER, CHANNEL, API_KEY, API_SECRET] {
        assert!(!seen.has(marker), "{marker} is in the traces");
    }
    assert!(seen.has("signaling.claimed_by"), "the bytes are searched");
}

#[tokio::test]
async fn a_failing_collector_stops_neither_deliveries_nor_the_shutdown() {
    for conduct in [Conduct::Away, Conduct::Hangs, Conduct::Refuses] {
        let world = World::new().await;
        let collector = Collector::start(conduct).await;
        world.insert_many(300).await;
        let mut worker = traced(&world, &collector)
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "32")
            .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
            .start();
        world.until_all_final().await;
        assert_eq!(world.seen().accepted, 300);
        let asked = Instant::now();
        worker.stop().await;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(10), "{conduct:?}: {took:?}");
        let told = worker.logged("collector_failed");
        assert!(told <= 1, "{conduct:?}: {told}");
        // The exporter still waits for a collector that hangs.
        assert!(told == 1 || matches!(conduct, Conduct::Hangs));
    }
}

#[tokio::test]
async fn a_collector_that_recovers_gets_traces_and_both_are_logged_once() {
    let world = World::new().await;
    let collector = Collector::start(Conduct::Refuses).await;
    let mut worker = traced(&world, &collector).start();
    world.insert(peer(json!({}))).await;
    worker.until_logged("collector_failed").await;
    collector.conduct(Conduct::Takes);
    let has_spans = async || {
        world.insert(peer(json!({}))).await;
        !collector.seen().spans().is_empty()
    };
    world
        .until("the collector has spans", PATIENCE, has_spans)
        .await;
    worker.until_logged("collector_restored").await;
    worker.stop().await;
    assert_eq!(worker.logged("collector_failed"), 1);
    assert_eq!(worker.logged("collector_restored"), 1);
}

#[tokio::test]
async fn invalid_settings_of_traces_are_errors_at_the_start() {
    let world = World::new().await;
    for (name, value, says) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "localhost:4317",
            "write it like http://localhost:4318",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere/ca.pem",
            "/nowhere/ca.pem",
        ),
    ] {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let worker = world.worker().env(endpoint.0, endpoint.1);
        worker.env(name, value).fails(2, &[says]).await;
    }
}

#[tokio::test]
async fn traces_use_the_proxy_of_the_environment() {
    let world = World::new().await;
    let collector = Collector::start(Conduct::Takes).await;
    let address = collector.url.trim_start_matches("http://");
    let proxy = ConnectProxy::start(address.parse().expect("an address")).await;
    let mut worker = traced(&world, &collector)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318")
        .env("http_proxy", &proxy.url())
        .start();
    world.assert_sends().await;
    worker.stop().await;
    assert!(!collector.seen().spans().is_empty());
    let head = &proxy.heads()[0];
    assert!(head.starts_with("CONNECT collector.test:4318 "), "{head}");
}
