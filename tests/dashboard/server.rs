//! The dashboard of a `worker run` process, on a free port.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::database_proxy::DatabaseProxy;
use testkit::{PATIENCE, Running, Worker, World, until};

/// Configures the app `idle` and no other.
const IDLE_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dashboard/idle.toml");

/// A worker's dashboard. Dropping it kills the worker.
pub(super) struct Dashboard {
    pub(super) url: String,
    _worker: Running,
}

/// A response of the dashboard.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

/// `worker run` for the app `idle`, which has no messages. Messages of other apps stay as the test inserted them. The
/// overview has a panel for `idle`, and `signaling.lane` a row.
pub(super) fn idle_worker(world: &World) -> Worker {
    world.worker_without_app().env("WORKER_CONFIG", IDLE_CONFIG)
}

impl Dashboard {
    /// Starts an idle worker on the world's database.
    pub(super) async fn of(world: &World) -> Self {
        Self::start(idle_worker(world)).await
    }

    /// Starts an idle worker whose connections to the database go through a proxy.
    pub(super) async fn through(proxy: &DatabaseProxy, world: &World) -> Self {
        Self::start(idle_worker(world).env("DATABASE_URL", proxy.url())).await
    }

    /// Starts an idle worker whose database refuses connections until the returned proxy is opened.
    pub(super) async fn without_database(world: &World) -> (Self, DatabaseProxy) {
        let proxy = DatabaseProxy::closed(world);
        let worker = idle_worker(world).env("DATABASE_URL", proxy.url());
        (Self::listening(worker).await, proxy)
    }

    /// Starts a worker, and waits until it is ready: by then its lanes have their rows.
    pub(super) async fn start(worker: Worker) -> Self {
        let dashboard = Self::listening(worker).await;
        until("the dashboard's worker is ready", PATIENCE, async || {
            dashboard.get("/readyz").await.status == StatusCode::OK
        })
        .await;
        dashboard
    }

    /// Starts a worker, and waits until its ops server listens.
    async fn listening(worker: Worker) -> Self {
        let worker = worker.env("WORKER_OPS_ADDR", "127.0.0.1:0").start();
        let mut url = None;
        until("the ops server listens", PATIENCE, async || {
            url = logged_url(&worker.stderr.text());
            url.is_some()
        })
        .await;
        Self {
            url: url.expect("just waited for"),
            _worker: worker,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        self.ask(Method::GET, path, "", &[]).await
    }

    /// Gets a page that has to exist.
    pub(super) async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        page.text
    }

    /// Gets a page that has to contain some parts.
    pub(super) async fn shows(&self, path: &str, parts: &[&str]) -> String {
        let page = self.page(path).await;
        for part in parts {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        page
    }

    /// Posts a form, and returns the path that the response redirects to.
    pub(super) async fn post(&self, path: &str, form: &str) -> String {
        let page = self.ask(Method::POST, path, form, &[]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{path}: {}", page.text);
        page.headers[LOCATION].to_str().expect("text").to_owned()
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        form: &str,
        headers: &[(&str, &str)],
    ) -> Page {
        let address = self.url.strip_prefix("http://").expect("a URL");
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address)
            .header("sec-fetch-site", "same-origin")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(form.to_owned())))
            .expect("a request");
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Page {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        }
    }
}

/// Reads the URL of the ops server, whose port the system has chosen, from the worker's log.
fn logged_url(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("ops server: ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// Counts the pending messages, as workers do from time to time. The count is skipped while a worker counts, and just
/// after, so it is repeated until it happens.
pub(super) async fn count_pending(world: &World) {
    world
        .until("pending messages are counted", PATIENCE, async || {
            world
                .ask("select signaling.refresh_queue_counts(interval '0')")
                .await
        })
        .await;
}
