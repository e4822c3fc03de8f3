//! The pages of a world, served by this process on a port of its own.

use std::sync::{Arc, OnceLock};

use axum::Router;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use signaling_worker::ops::{self, Access, OpsState};
use signaling_worker::outbox::Outbox;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower_service::Service as _;

use testkit::World;

/// The pages, served until this goes out of scope.
pub(super) struct Dashboard {
    pub(super) url: String,
    pub(super) outbox: Option<Arc<Outbox>>,
    serving: JoinHandle<()>,
}

/// A page as it came.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Dashboard {
    /// The pages of a world.
    pub(super) async fn of(world: &World) -> Self {
        Self::with(&world.url, 2, Access::Loopback).await
    }

    /// Those of a database, beside a worker with so many connections for its work, for whoever may ask.
    pub(super) async fn with(url: &str, connections: u32, access: Access) -> Self {
        let url = SecretString::from(url.to_owned());
        let outbox = Outbox::connect(&url, connections).await;
        let outbox = Arc::new(outbox.expect("connected"));
        let mut state = OpsState::default();
        state.access = access;
        state.outbox.set(Arc::clone(&outbox)).expect("set once");
        let mut dashboard = Self::serve(state).await;
        dashboard.outbox = Some(outbox);
        dashboard
    }

    /// Those of a worker that has not reached its database yet; and where it is put once it has.
    pub(super) async fn without_database() -> (Self, Arc<OnceLock<Arc<Outbox>>>) {
        let state = OpsState::default();
        let outbox = Arc::clone(&state.outbox);
        (Self::serve(state).await, outbox)
    }

    async fn serve(state: OpsState) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = ops::router(state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, router.clone()));
            }
        });
        Self {
            url: format!("http://{address}"),
            outbox: None,
            serving,
        }
    }

    /// Counts what waits, as workers do now and then.
    pub(super) async fn count(&self) {
        let outbox = self.outbox.as_ref().expect("a database");
        outbox
            .refresh_queue_counts(std::time::Duration::ZERO)
            .await
            .expect("counted");
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        self.ask(Method::GET, path, "", &[]).await
    }

    /// A page that there is.
    pub(super) async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        page.text
    }

    /// Sends a form; where it leads.
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
        let answer = sender.send_request(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Page {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
    // Whoever asked may have gone.
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}
