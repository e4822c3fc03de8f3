//! Asking a worker's ops server, byte by byte: what a browser would add, a test adds itself.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::{PATIENCE, Running, Worker, comes_true};

/// A worker with an ops server.
pub(super) struct Watched {
    pub(super) worker: Running,
    pub(super) door: Door,
}

impl Watched {
    pub(super) async fn start(worker: Worker) -> Self {
        let worker = worker.env("WORKER_OPS_ADDR", "127.0.0.1:0").start();
        worker.until_logged("ops_server_started").await;
        let line = worker.log_line("ops_server_started");
        let (_, rest) = line.split_once(" address=").expect("an address");
        let address = rest.split_whitespace().next().expect("an address");
        let door = Door(address.parse().expect("an address"));
        Self { worker, door }
    }

    /// Waits until it says that it is ready.
    pub(super) async fn until_ready(&self) {
        self.until_readiness(200, "").await;
    }

    /// Waits until its readiness has a status and says something.
    pub(super) async fn until_readiness(&self, status: u16, phrase: &str) {
        let mut last = String::new();
        let came = comes_true(PATIENCE * 2, async || {
            let answer = self.door.get("/readyz").await;
            last = format!("{} {}", answer.status, answer.body);
            answer.status == status && answer.body.contains(phrase)
        })
        .await;
        assert!(came, "readiness is not {status} with {phrase:?}: {last}");
    }
}

/// Where to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door(pub(super) SocketAddr);

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    /// A header's value; none if it is missing.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Door {
    pub(super) async fn get(self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub(super) async fn get_with(self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, "").await
    }

    /// Sends a form as a page of the same server does.
    pub(super) async fn post(self, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
        let mut all = vec![
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        all.extend(headers);
        self.ask("POST", path, &all, form).await
    }

    /// Asks, with the server's address as Host unless another one is given.
    pub(super) async fn ask(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut lines = vec![
            format!("{method} {path} HTTP/1.1"),
            "connection: close".to_owned(),
            format!("content-length: {}", body.len()),
        ];
        if !headers.iter().any(|(name, _)| *name == "host") {
            lines.push(format!("host: {}", self.0));
        }
        lines.extend(
            headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        let request = format!("{}\r\n\r\n{body}", lines.join("\r\n"));
        let asking = async {
            let mut stream = TcpStream::connect(self.0).await.expect("connected");
            // A server that has seen enough may answer and close before it has read everything.
            stream.write_all(request.as_bytes()).await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            String::from_utf8(answer).expect("text")
        };
        let text = tokio::time::timeout(PATIENCE, asking)
            .await
            .expect("an answer in time");
        parse(&text)
    }
}

fn parse(text: &str) -> Answer {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("a status");
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}
