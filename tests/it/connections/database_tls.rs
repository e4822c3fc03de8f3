//! A database that shows a certificate.

use harness::postgres::Settings;
use tempfile::TempDir;

use harness::{PATIENCE, Postgres, Worker, World, slow_api, write};

use crate::certificates::{Authority, Certified};

/// The user that only a client certificate lets in.
pub(super) const CERTIFIED_USER: &str = "certified";

/// Rules for logins: only the administrator, who sets the cluster up, connects without TLS.
const HOST_BASED_AUTHENTICATION: &str = "local all all trust
host all postgres 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
";

/// A cluster with TLS, and a directory with the certificate of the CA that it goes by.
pub(super) struct Encrypted {
    pub(super) postgres: Postgres,
    pub(super) ca: Authority,
    pub(super) directory: TempDir,
}

impl Encrypted {
    /// Starts a cluster that shows a certificate, and takes those of clients by the same CA.
    pub(super) async fn start(certificate: impl FnOnce(&Authority) -> Certified) -> Self {
        let ca = Authority::new("the CA of the tests");
        let server = certificate(&ca);
        let postgres = Postgres::start_with(Settings {
            server_settings: vec![
                "ssl=on".into(),
                "ssl_cert_file=test-server.pem".into(),
                "ssl_key_file=test-server.key".into(),
                "ssl_ca_file=test-ca.pem".into(),
            ],
            data_files: vec![
                ("test-server.pem", server.certificate),
                ("test-server.key", server.key),
                ("test-ca.pem", ca.pem()),
                ("pg_hba.conf", HOST_BASED_AUTHENTICATION.into()),
            ],
            ..Settings::default()
        })
        .await;
        let directory = TempDir::new().expect("a directory");
        write(directory.path(), "ca.pem", &ca.pem());
        Self {
            postgres,
            ca,
            directory,
        }
    }

    /// The path of a file in the directory.
    pub(super) fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("a path").to_owned()
    }

    /// A URL of the cluster, for another host name and with another query.
    pub(super) fn url(url: &str, host: &str, query: &str) -> String {
        let (before, _) = url.split_once('?').expect("a query");
        let before = before.replace("@127.0.0.1:", &format!("@{host}:"));
        format!("{before}?{query}")
    }

    /// A URL of the cluster, as an operator would write it.
    pub(super) fn verified(&self, url: &str) -> String {
        let query = format!("sslmode=verify-full&sslrootcert={}", self.path("ca.pem"));
        Self::url(url, "localhost", &query)
    }

    /// A world in which only the files `client.pem` and `client.key` sign a superuser in, and its URL without these.
    pub(super) async fn certified_world(&self) -> (World, String) {
        let mut world = World::on(&self.postgres, slow_api(0)).await;
        world
            .execute(&format!("create role {CERTIFIED_USER} superuser login"))
            .await;
        let (_, server) = world.url.split_once('@').expect("a host");
        let url = self.verified(&format!("postgres://{CERTIFIED_USER}@{server}"));
        let (certificate, key) = (self.path("client.pem"), self.path("client.key"));
        world.url = format!("{url}&sslcert={certificate}&sslkey={key}");
        (world, url)
    }
}

pub(super) fn assert_no_password(url: &str, output: &str) {
    let (_, password) = url.split_once("//postgres:").expect("a password");
    let (password, _) = password.split_once('@').expect("a host");
    assert!(!output.contains(password), "the password is shown");
}

/// The connections of workers, and those of them that are not encrypted.
async fn connections(world: &World) -> (i64, i64) {
    sqlx::query_as(
        "select count(*), count(*) filter (where not ssl or version not like 'TLSv1.%')
         from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'signaling-worker'",
    )
    .fetch_one(&world.pool)
    .await
    .expect("counts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_encrypted_and_checked_with_sslmode_verify_full() {
    let tls = Encrypted::start(|ca| ca.server("localhost")).await;
    let empty = tls.verified(&tls.postgres.empty_database().await);
    Worker::on(&empty, &["migrate"]).succeeds().await;

    let mut world = World::on(&tls.postgres, slow_api(20)).await;
    world.url = tls.verified(&world.url);
    let mut worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    world.until_idle().await;
    world
        .until_true(
            "select exists (select from pg_stat_activity join pg_stat_ssl using (pid)
             where application_name = 'signaling-worker' and query ilike 'listen%' and ssl)",
        )
        .await;
    world.assert_sends().await;

    world.insert_many(300).await;
    let mut most = 0;
    world
        .until("every row is final", PATIENCE, async || {
            let (all, bare) = connections(&world).await;
            assert_eq!(bare, 0, "connections without TLS");
            most = most.max(all);
            world.count("status = 'pending'").await == 0
        })
        .await;
    // One that claims, one that records, one that listens.
    assert!(most >= 3, "only {most} connections were seen");
    world.run(&["status"]).await;
    worker.stop().await;
    assert_no_password(&world.url, &worker.stderr.text());
}
