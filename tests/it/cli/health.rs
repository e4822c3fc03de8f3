//! `worker health`, which asks a worker's ops server; here that is one of the test's own.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};

use testkit::{Finished, Worker, assert_contains};

/// Serves what a worker's ops server would, until the test ends.
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

async fn health(address: &str, flags: &[&str]) -> Finished {
    let command: Vec<_> = ["health"].iter().chain(flags).copied().collect();
    Worker::new(&command)
        .env("WORKER_OPS_ADDR", address)
        .finish()
        .await
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
    let address = serve(router).await.to_string();

    let alive = health(&address, &[]).await;
    let found = (alive.code, &*alive.stdout);
    assert_eq!(found, (Some(0), "alive\n"), "{alive:?}");

    let ready = health(&address, &["--ready"]).await;
    assert_eq!(ready.code, Some(1), "{ready:?}");
    assert_eq!(
        ready.stderr.trim_end(),
        format!(
            "error: http://{address}/readyz answers 503: ok   process: running; FAIL database: it can't be reached"
        )
    );
}

#[tokio::test]
async fn a_worker_that_listens_on_all_interfaces_is_reached_on_loopback() {
    let address = serve(Router::new().route("/healthz", get(async || "alive\n"))).await;
    let everywhere = format!("0.0.0.0:{}", address.port());
    let alive = health(&everywhere, &[]).await;
    assert_eq!(alive.code, Some(0), "{alive:?}");
}

#[tokio::test]
async fn an_unreachable_or_silent_worker_is_named_with_its_address() {
    // A bound socket that does not listen keeps the port, and refuses connections.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let nobody = socket.local_addr().expect("its address").to_string();
    let dead = health(&nobody, &[]).await;
    assert_eq!(dead.code, Some(1), "{dead:?}");
    let phrase = format!("http://{nobody}/healthz can't be reached");
    assert!(dead.stderr.contains(&phrase), "{dead:?}");

    let never = get(std::future::pending::<&str>);
    let silent = serve(Router::new().route("/healthz", never)).await;
    let silent = health(&silent.to_string(), &[]).await;
    assert_eq!(silent.code, Some(1), "{silent:?}");
    assert_contains(&silent.stderr, &["has not answered within 4s"]);
}

#[tokio::test]
async fn a_long_response_is_cut() {
    let long = async || "x".repeat(1024 * 1024);
    let address = serve(Router::new().route("/healthz", get(long))).await;
    let finished = health(&address.to_string(), &[]).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.len() < 2_000, "{finished:?}");
}

#[tokio::test]
async fn an_unusable_address_is_wrong_usage() {
    for (address, phrase) in [
        ("off", "invalid value 'off'"),
        ("localhost", "like 127.0.0.1:9090"),
        ("127.0.0.1:0", "for port 0"),
    ] {
        let refused = health(address, &[]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(phrase), "{refused:?}");
    }
}
