//! The simulator behind real connections, and its parts.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

mod auth;
mod calls;
mod fault_rules;
mod faults;
mod ledger;
mod running;

const TIMEOUT: Duration = Duration::from_secs(30);

struct Client {
    sender: SendRequest<Full<Bytes>>,
}

struct Reply {
    status: StatusCode,
    headers: hyper::HeaderMap,
    body: Value,
}

impl Client {
    async fn new(simulator: &Simulator) -> Self {
        let stream = TcpStream::connect(simulator.address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<Reply, hyper::Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "simulator")
            .header(header::CONTENT_TYPE, "application/json;charset=utf-8")
            .body(Full::from(body))
            .unwrap();
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    async fn send(&mut self, target: &str, payload: &str) -> Result<Reply, hyper::Error> {
        let body = json!({ "destination": target, "payload": payload }).to_string();
        let path = "/dev/v2/project/app/rtm/users/alice/peer_messages?wait_for_ack=true";
        self.request("POST", path, body).await
    }
}

async fn started(rules: &[&str]) -> Simulator {
    let config = SimulatorConfig {
        faults: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        ..SimulatorConfig::default()
    };
    Simulator::start(config).await.unwrap()
}

async fn until(simulator: &Simulator, holds: impl Fn(&Summary) -> bool) {
    let waiting = async {
        while !holds(&simulator.ledger().summary()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
}
