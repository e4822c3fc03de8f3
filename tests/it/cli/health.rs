//! `worker health`, which asks a worker's ops server. Here the test serves the responses.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};

use harness::Worker;

/// Serves as a worker's ops server until the test ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn health(address: &str) -> Worker {
    Worker::new(&["health"]).env("WORKER_OPS_ADDR", address)
}

#[tokio::test]
async fn a_worker_may_be_alive_and_not_ready() {
    let unready = async || {
        let says = "ok   process: running\nFAIL database: it can't be reached\n";
        (StatusCode::SERVICE_UNAVAILABLE, says)
    };
    let router = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(unready));
    let address = serve(router).await;
    // An address of all interfaces is asked on loopback.
    for host in ["127.0.0.1", "0.0.0.0"] {
        let alive = health(&format!("{host}:{}", address.port()));
        assert_eq!(alive.succeeds().await, "alive\n");
    }
    let ready = health(&address.to_string()).arg("--ready");
    let expected = format!(
        "error: http://{address}/readyz answers 503: ok   process: running; FAIL database: it can't be reached\n"
    );
    let ready = ready.fails(1, &[]).await;
    assert_eq!(ready.stderr, expected);
}

#[tokio::test]
async fn an_unreachable_or_silent_worker_is_named_with_its_address() {
    // A bound socket that does not listen keeps the port, and refuses connections.
    let socket = TcpSocket::new_v4().expect("a socket");
    let any_port = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any_port).expect("a port");
    let nobody = socket.local_addr().expect("its address").to_string();
    let phrase = format!("http://{nobody}/healthz can't be reached");
    health(&nobody).fails(1, &[&phrase]).await;

    let never = get(std::future::pending::<&str>);
    let silent = serve(Router::new().route("/healthz", never)).await;
    let silent = health(&silent.to_string());
    silent.fails(1, &["has not answered within 4s"]).await;
}

#[tokio::test]
async fn a_long_response_is_cut() {
    let long = async || "x".repeat(1024 * 1024);
    let address = serve(Router::new().route("/healthz", get(long))).await;
    let finished = health(&address.to_string()).fails(1, &[]).await;
    assert!(finished.stderr.len() < 2_000, "{finished:?}");
}

#[tokio::test]
async fn an_unusable_address_is_wrong_usage() {
    for (address, phrase) in [
        ("off", "invalid value 'off'"),
        ("localhost", "like 127.0.0.1:9090"),
        ("127.0.0.1:0", "for port 0"),
    ] {
        health(address).fails(2, &[phrase]).await;
    }
}
