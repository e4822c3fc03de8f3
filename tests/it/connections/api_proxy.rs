//! The API behind a proxy that takes CONNECT.

use serde_json::json;
use simulator::SimulatorConfig;
use tempfile::TempDir;

use harness::{PATIENCE, Running, Worker, World, assert_contains, peer};

use crate::certificates::Authority;
use crate::connect_proxy::{ConnectProxy, Mode};

/// A name that only the proxy resolves.
const API: &str = "https://api.test";

/// The credentials `me:hush-hush`, as the proxy receives them.
const CREDENTIALS: &str = "Basic bWU6aHVzaC1odXNo";

/// An API with TLS, and a proxy to it.
struct Behind {
    world: World,
    proxy: ConnectProxy,
    /// The CA of the API's certificate.
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
        Self {
            proxy: ConnectProxy::start(world.simulator.address).await,
            world,
            ca,
            directory,
        }
    }

    /// A proxy that shows a certificate of this CA.
    async fn tls_proxy(&self, ca: &Authority) -> (ConnectProxy, String) {
        let certified = ca.server("127.0.0.1");
        let files = certified.write(self.directory.path(), "proxy");
        let target = self.world.simulator.address;
        let proxy = ConnectProxy::start_with_tls(target, &files).await;
        let url = format!("https://{}", proxy.address);
        (proxy, url)
    }

    fn worker(&self) -> Worker {
        self.world
            .worker()
            .env("AGORA_BASE_URL", API)
            .file("AGORA_CA_FILE", &self.ca.pem())
            .env("WORKER_CONNECT_TIMEOUT", "1s")
    }

    /// `worker check` with the settings of the worker.
    fn check(&self) -> Worker {
        self.worker().as_command(&["check"])
    }

    async fn insert(&self) -> i64 {
        self.world.insert(peer(json!({}))).await
    }

    /// Sends a message through a proxy that can't be used. Returns the worker, the message, and the error of its attempt.
    async fn fail_through(&self, proxy: &str) -> (Running, i64, String) {
        self.world.execute("delete from signaling.outbox").await;
        let id = self.insert().await;
        let worker = self.worker().env("HTTPS_PROXY", proxy).start();
        (worker, id, self.error_of(id).await)
    }

    /// Waits until the message has failed an attempt, and returns its error.
    async fn error_of(&self, id: i64) -> String {
        let attempts = async || self.world.attempts(id).await;
        let has_failed = async || !attempts().await.is_empty();
        self.world
            .until("an attempt has failed", PATIENCE, has_failed)
            .await;
        let attempt = attempts().await.swap_remove(0);
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

#[tokio::test]
async fn calls_go_through_the_proxy_of_the_environment_with_tls_to_the_api() {
    let behind = Behind::new().await;
    behind.proxy.demand(CREDENTIALS);
    let proxy = format!("http://me:hush-hush@{}", behind.proxy.address);
    let worker = behind.worker().env("HTTPS_PROXY", &proxy);
    let mut worker = worker.env("WORKER_LOG", "debug").start();
    behind.world.assert_sends().await;
    assert_eq!(behind.world.seen().calls, 1);
    let heads = behind.proxy.heads();
    let connects = heads[0].starts_with("CONNECT api.test:443 HTTP/1.1\r\n");
    assert!(connects, "{heads:?}");
    worker.stop().await;
    let output = worker.stdout.text() + &worker.stderr.text();
    for secret in ["hush-hush", CREDENTIALS] {
        assert!(!output.contains(secret), "{output}");
    }
}

#[tokio::test]
async fn a_host_of_no_proxy_and_a_loopback_address_are_called_directly() {
    let world = World::new().await;
    let proxy = ConnectProxy::start(world.simulator.address).await;
    let mut worker = world.worker().env("ALL_PROXY", &proxy.url()).start();
    world.assert_sends().await;
    worker.stop().await;
    assert!(proxy.heads().is_empty(), "{:?}", proxy.heads());

    // A name without an address, which only the proxy would know.
    let behind = Behind::new().await;
    let id = behind.insert().await;
    let _worker = behind
        .worker()
        .env("https_proxy", &behind.proxy.url())
        .env("no_proxy", "other.test,.test")
        .start();
    assert_contains(&behind.error_of(id).await, &["dns error"]);
    assert!(behind.proxy.heads().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_itself_reached_by_tls_is_trusted_by_its_certificate() {
    let behind = Behind::new().await;
    let (proxy, url) = behind.tls_proxy(&behind.ca).await;
    let mut worker = behind.worker().env("HTTPS_PROXY", &url).start();
    behind.world.assert_sends().await;
    assert_eq!(proxy.heads().len(), 1);
    worker.stop().await;

    let stranger = Authority::new("another CA");
    let (_proxy, url) = behind.tls_proxy(&stranger).await;
    let (_worker, _, error) = behind.fail_through(&url).await;
    let phrase = format!("through the proxy {url}/: its certificate is signed by no CA");
    assert_contains(&error, &[&phrase]);
}

#[tokio::test]
async fn wrong_credentials_are_the_proxys_error_and_never_the_messages() {
    let behind = Behind::new().await;
    behind.proxy.demand(CREDENTIALS);
    let address = behind.proxy.address;
    for credentials in ["", "me:wrong-one@"] {
        let proxy = format!("http://{credentials}{address}");
        let (mut worker, _, error) = behind.fail_through(&proxy).await;
        let named = format!("through the proxy http://{address}/: ");
        assert_contains(&error, &[&named, "proxy authorization required"]);
        assert!(!error.contains("wrong-one"), "{error}");
        worker.stop().await;
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
        let (mut worker, id, error) = behind.fail_through(&url).await;
        assert_contains(&error, &[&format!("the proxy {url}"), phrase]);
        behind.recovers(id).await;
        worker.stop().await;
    }
    // No server listens at port 9 of loopback.
    let (_worker, _, error) = behind.fail_through("http://127.0.0.1:9").await;
    let phrases = ["through the proxy http://127.0.0.1:9/: ", "refused"];
    assert_contains(&error, &phrases);
}

#[tokio::test]
async fn a_proxy_that_can_not_be_used_ends_the_start_without_its_value() {
    let world = World::new().await;
    let worker = world
        .worker()
        .env("AGORA_BASE_URL", API)
        .env("HTTPS_PROXY", "socks5://me:hush-hush@proxy.test:1080");
    let phrase = "HTTPS_PROXY can't be used for api.test: a SOCKS proxy is not supported";
    let finished = worker.fails(2, &[phrase]).await;
    let output = finished.stdout + &finished.stderr;
    assert!(!output.contains("hush"), "{output}");
}

#[tokio::test]
async fn check_names_the_proxy_of_each_host() {
    let behind = Behind::new().await;
    let url = behind.proxy.url();
    let check = || behind.check().env("HTTPS_PROXY", &url);
    let hosts = format!("{API},{}", behind.world.simulator.base_url());
    let report = check().env("AGORA_BASE_URL", &hosts).finish().await.stdout;
    let phrase = format!("{API}: connected through the proxy {url}/ in");
    assert_contains(&report, &[&phrase]);
    behind.proxy.set_mode(Mode::Refuse(403));
    let finished = check().fails(1, &[]).await;
    let phrases = [
        &format!("through the proxy {url}/: "),
        "list the host in NO_PROXY",
    ];
    assert_contains(&finished.stdout, &phrases);
}
