//! A proxy for HTTP CONNECT, as between an organisation and the internet.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use simulator::TlsFiles;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The behaviour of the proxy for new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Connect,
    /// The proxy answers each CONNECT with this status.
    Refuse(u16),
    /// The proxy never answers.
    Hang,
    /// The proxy closes the connection without a response.
    Close,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// The end of each tunnel, for any name that the client sends.
    target: SocketAddr,
    /// Without this value of `Proxy-Authorization`, the proxy answers 407.
    demanded: Option<String>,
    /// The proxy keeps a tunnel open after the server has closed it.
    hides_close: bool,
    /// The heads of the CONNECT requests.
    heads: Vec<String>,
}

pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl ConnectProxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::listen(target, None).await
    }

    /// A proxy that clients connect to with TLS.
    pub(crate) async fn start_with_tls(target: SocketAddr, files: &TlsFiles) -> Self {
        Self::listen(target, Some(files.acceptor().expect("PEM files"))).await
    }

    async fn listen(target: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Connect,
            target,
            demanded: None,
            hides_close: false,
            heads: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &state).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            state,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        lock(&self.state).mode = mode;
    }

    pub(crate) fn set_target(&self, target: SocketAddr) {
        lock(&self.state).target = target;
    }

    /// Requires this value of `Proxy-Authorization`.
    pub(crate) fn demand(&self, authorization: &str) {
        lock(&self.state).demanded = Some(authorization.to_owned());
    }

    pub(crate) fn hide_close(&self) {
        lock(&self.state).hides_close = true;
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        lock(&self.state).heads.clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("whole")
}

async fn serve(mut client: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (mode, target, is_welcome) = {
        let mut state = lock(state);
        state.heads.push(head.clone());
        let is_welcome = state.demanded.as_ref().is_none_or(|demanded| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .any(|(name, value)| {
                    name.eq_ignore_ascii_case("proxy-authorization") && value == demanded
                })
        });
        (state.mode, state.target, is_welcome)
    };
    let refusal = match mode {
        Mode::Close => return,
        Mode::Hang => return std::future::pending().await,
        Mode::Refuse(status) => Some(status),
        Mode::Connect => (!is_welcome).then_some(407),
    };
    if let Some(status) = refusal {
        let response = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        client.write_all(response.as_bytes()).await.ok();
        client.shutdown().await.ok();
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    if client
        .write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
        .await
        .is_ok()
    {
        tunnel(client, server, state).await;
    }
}

async fn tunnel(client: impl AsyncRead + AsyncWrite, mut server: TcpStream, state: &Mutex<State>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
    if lock(state).hides_close {
        // The socket stays open, so the client does not learn that the server has closed the tunnel.
        copy(&mut from_client, &mut sink()).await.ok();
    }
}
