//! The API behind a proxy that takes CONNECT.

use serde_json::json;
use simulator::SimulatorConfig;
use tempfile::TempDir;

use testkit::{PATIENCE, Running, Worker, World, assert_contains, peer, write};

use crate::certificates::Authority;
use crate::connect_proxy::{ConnectProxy, Mode};

/// A name that only the proxy resolves.
const API: &str = "https://api.test";

/// An API with TLS, a proxy to it, and the file with the CA of both.
struct Behind {
    world: World,
    proxy: ConnectProxy,
    ca_file: String,
    ca: Authority,
    directory: TempDir,
}

impl Behind {
    async fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let ca = Authority::new("the CA of the tests");
        let world = World::with(SimulatorConfig {
            tls: Some(ca.server("api.test").write(directory.path(), "server")),
            ..SimulatorConfig::default()
        })
        .await;
        let file = write(directory.path(), "ca.pem", &ca.pem());
        Self {
            proxy: ConnectProxy::start(world.simulator.address).await,
            ca_file: file.to_str().expect("a path").to_owned(),
            world,
            ca,
            directory,
        }
    }

    fn named(&self, worker: Worker) -> Worker {
        worker
            .env("AGORA_BASE_URL", API)
            .env("AGORA_CA_FILE", &self.ca_file)
            .env("WORKER_CONNECT_TIMEOUT", "1s")
    }

    fn worker(&self) -> Worker {
        self.named(self.world.worker())
    }

    /// `worker check` with the settings of the worker.
    fn check(&self) -> Worker {
        self.worker().as_command(&["check"])
    }

    /// Waits until the message has failed an attempt, and returns its error.
    async fn error_of(&self, id: i64) -> String {
        self.world
            .until("an attempt has failed", PATIENCE, async || {
                !self.world.attempts(id).await.is_empty()
            })
            .await;
        let attempt = self.world.attempts(id).await.swap_remove(0);
        assert!(!attempt.charged, "{attempt:?}");
        attempt.error.expect("an error")
    }

    /// Sends a message through the proxy, which then works.
    async fn recovers(&self, id: i64) {
        let calls_before = self.world.seen().calls;
        self.proxy.set_mode(Mode::Connect);
        let row = self.world.until_final(id).await;
        assert_eq!(row.status, "message_sent");
        assert_eq!(row.attempts, 1, "no failure of the proxy is charged");
        assert_eq!(self.world.seen().calls, calls_before + 1);
    }
}

async fn log_of(mut worker: Running) -> String {
    worker.stop().await;
    format!("{}{}", worker.stdout.text(), worker.stderr.text())
}

#[tokio::test]
async fn calls_go_through_the_proxy_of_the_environment_with_tls_to_the_api() {
    let behind = Behind::new().await;
    behind.proxy.demand("Basic bWU6aHVzaC1odXNo");
    let id = behind.world.insert(peer(json!({}))).await;
    let proxy = format!("http://me:hush-hush@{}", behind.proxy.address);
    let worker = behind
        .worker()
        .env("HTTPS_PROXY", &proxy)
        .env("WORKER_LOG", "debug")
        .start();
    assert_eq!(behind.world.until_final(id).await.status, "message_sent");
    assert_eq!(behind.world.seen().calls, 1);
    let heads = behind.proxy.heads();
    assert!(
        heads[0].starts_with("CONNECT api.test:443 HTTP/1.1\r\n"),
        "{heads:?}"
    );
    let log = log_of(worker).await;
    for secret in ["hush-hush", "bWU6aHVzaC1odXNo"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn a_host_of_no_proxy_and_a_loopback_address_are_called_directly() {
    let world = World::new().await;
    let proxy = ConnectProxy::start(world.simulator.address).await;
    let id = world.insert(peer(json!({}))).await;
    let mut worker = world.worker().env("ALL_PROXY", &proxy.url()).start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());

    // The same for a name: it has no address, and the proxy would have known one.
    let behind = Behind::new().await;
    let id = behind.world.insert(peer(json!({}))).await;
    let _worker = behind
        .worker()
        .env("https_proxy", &behind.proxy.url())
        .env("no_proxy", "other.test,.test")
        .start();
    let error = behind.error_of(id).await;
    assert!(error.contains("dns error"), "{error}");
    assert!(behind.proxy.heads().is_empty());
}

#[tokio::test]
async fn an_api_without_tls_is_called_through_http_proxy_by_connect() {
    let world = World::new().await;
    let proxy = ConnectProxy::start(world.simulator.address).await;
    let id = world.insert(peer(json!({}))).await;
    let _worker = world
        .worker()
        .env("AGORA_BASE_URL", "http://api.test")
        .env("http_proxy", &proxy.url())
        .env("HTTP_PROXY", "http://192.0.2.1:9")
        .start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    let heads = proxy.heads();
    assert!(heads[0].starts_with("CONNECT api.test:80 "), "{heads:?}");
}

#[tokio::test]
async fn a_proxy_that_is_itself_reached_by_tls_is_trusted_by_its_certificate() {
    let behind = Behind::new().await;
    let files = behind
        .ca
        .server("127.0.0.1")
        .write(behind.directory.path(), "proxy");
    let proxy = ConnectProxy::start_with_tls(behind.world.simulator.address, &files).await;
    let id = behind.world.insert(peer(json!({}))).await;
    let url = format!("https://{}", proxy.address);
    let mut worker = behind.worker().env("HTTPS_PROXY", &url).start();
    assert_eq!(behind.world.until_final(id).await.status, "message_sent");
    assert_eq!(proxy.heads().len(), 1);
    worker.stop().await;

    let stranger = Authority::new("another CA");
    let files = stranger
        .server("127.0.0.1")
        .write(behind.directory.path(), "stranger");
    let proxy = ConnectProxy::start_with_tls(behind.world.simulator.address, &files).await;
    let id = behind
        .world
        .insert(peer(json!({"payload": "second"})))
        .await;
    let url = format!("https://{}", proxy.address);
    let _worker = behind.worker().env("HTTPS_PROXY", &url).start();
    let error = behind.error_of(id).await;
    let phrase = &format!("through the proxy {url}/: its certificate is signed by no CA");
    assert_contains(&error, &[phrase]);
}

#[tokio::test]
async fn wrong_credentials_are_the_proxys_error_and_never_the_messages() {
    let behind = Behind::new().await;
    behind.proxy.demand("Basic bWU6aHVzaC1odXNo");
    let address = behind.proxy.address;
    for proxy in [
        format!("http://{address}"),
        format!("http://me:wrong-one@{address}"),
    ] {
        let id = behind.world.insert(peer(json!({}))).await;
        let mut worker = behind.worker().env("HTTPS_PROXY", &proxy).start();
        let error = behind.error_of(id).await;
        assert!(
            error.contains(&format!("through the proxy http://{address}/: "))
                && error.contains("proxy authorization required"),
            "{error}"
        );
        assert!(!error.contains("wrong-one"), "{error}");
        worker.stop().await;
        behind.world.execute("delete from signaling.outbox").await;
    }
    assert_eq!(behind.world.seen().calls, 0);
}

#[tokio::test]
async fn a_proxy_that_is_down_refuses_or_hangs_is_named_and_costs_no_attempt() {
    let behind = Behind::new().await;
    let url = behind.proxy.url();
    for (mode, phrase) in [
        (Mode::Refuse(403), "tunnel error: unsuccessful"),
        (Mode::Hang, "no connection within 1s"),
        (Mode::Close, "tunnel error: unexpected end of file"),
    ] {
        behind.proxy.set_mode(mode);
        let id = behind.world.insert(peer(json!({}))).await;
        let mut worker = behind.worker().env("HTTPS_PROXY", &url).start();
        let error = behind.error_of(id).await;
        assert!(
            error.contains(&format!("the proxy {url}")) && error.contains(phrase),
            "{mode:?}: {error}"
        );
        behind.recovers(id).await;
        worker.stop().await;
        behind.world.execute("delete from signaling.outbox").await;
    }
    let id = behind.world.insert(peer(json!({}))).await;
    // No server listens at port 9 of loopback.
    let _worker = behind
        .worker()
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .start();
    let error = behind.error_of(id).await;
    assert!(
        error.contains("through the proxy http://127.0.0.1:9/: ") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_that_can_not_be_used_ends_the_start_without_its_value() {
    let world = World::new().await;
    for (value, why) in [
        (
            "socks5://me:hush-hush@proxy.test:1080",
            "a SOCKS proxy is not supported",
        ),
        ("http://me:hush hush@proxy.test", "it is no URL of a proxy"),
    ] {
        let worker = world
            .worker()
            .env("AGORA_BASE_URL", API)
            .env("HTTPS_PROXY", value);
        let finished = worker.finish().await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        let output = format!("{}{}", finished.stdout, finished.stderr);
        let expected = format!("HTTPS_PROXY can't be used for api.test: {why}");
        assert!(output.contains(&expected), "{output}");
        assert!(!output.contains("hush"), "{output}");
    }
}

#[tokio::test]
async fn check_says_which_proxy_is_used_for_which_host() {
    let behind = Behind::new().await;
    behind.world.command(&["migrate"]).finish().await;
    let url = behind.proxy.url();
    let hosts = format!("{API},{}", behind.world.simulator.base_url());
    let check = behind
        .check()
        .env("HTTPS_PROXY", &url)
        .env("AGORA_BASE_URL", &hosts);
    let report = check.finish().await.stdout;
    let phrase = &format!("{API}: connected through the proxy {url}/ in");
    assert_contains(&report, &[phrase]);
    behind.proxy.set_mode(Mode::Refuse(403));
    let finished = behind.check().env("HTTPS_PROXY", &url).finish().await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let phrases = [
        &format!("through the proxy {url}/: "),
        "list the host in NO_PROXY",
    ];
    assert_contains(&finished.stdout, &phrases);
}
