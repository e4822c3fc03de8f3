//! An API behind a certificate of a private CA.

use serde_json::json;
use simulator::{SimulatorConfig, TlsFiles};
use tempfile::TempDir;

use testkit::{World, peer, write};

use crate::certificates::Authority;

/// A world whose API shows these files.
async fn world(tls: TlsFiles) -> World {
    let world = World::with(SimulatorConfig {
        tls: Some(tls),
        ..SimulatorConfig::default()
    })
    .await;
    assert!(world.simulator.base_url().starts_with("https://127.0.0.1:"));
    world
}

#[tokio::test]
async fn an_api_behind_a_private_ca_is_called_where_that_is_named() {
    let directory = TempDir::new().expect("a directory");
    let ca = Authority::new("the CA of the tests");
    let world = world(ca.server("127.0.0.1").write(directory.path(), "server")).await;
    let file = write(directory.path(), "ca.pem", &ca.pem());
    let id = world.insert(peer(json!({}))).await;
    let _worker = world
        .worker()
        .env("AGORA_CA_FILE", file.to_str().expect("a path"))
        .start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.seen().calls, 1);
}

#[tokio::test]
async fn an_api_that_can_not_prove_who_it_is_gets_no_call_and_the_row_says_why() {
    let directory = TempDir::new().expect("a directory");
    let ca = Authority::new("the CA of the tests");
    let named = write(directory.path(), "ca.pem", &ca.pem());
    let other = Authority::new("another CA");
    let other = write(directory.path(), "other.pem", &other.pem());
    let (named, other) = (named.to_str(), other.to_str());
    let unknown = "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in AGORA_CA_FILE";
    for (certified, ca_file, why) in [
        (ca.server("127.0.0.1"), None, unknown),
        (ca.server("127.0.0.1"), other, unknown),
        (
            ca.server("api.example"),
            named,
            "its certificate is not accepted: certificate not valid for name \"127.0.0.1\"",
        ),
        (
            ca.expired_server("127.0.0.1"),
            named,
            "its certificate is not accepted: certificate expired",
        ),
    ] {
        let world = world(certified.write(directory.path(), "server")).await;
        let id = world.insert(peer(json!({}))).await;
        let worker = world.worker().env("WORKER_GIVE_UP_AFTER", "1ms");
        let worker = match ca_file {
            Some(path) => worker.env("AGORA_CA_FILE", path),
            None => worker,
        };
        let mut worker = worker.start();
        let row = world.until_final(id).await;
        assert_eq!((row.status.as_str(), row.http_status), ("failed", None));
        assert_eq!(row.attempts, 0, "the message is not at fault");
        let error = row.error.expect("an error");
        assert!(error.contains(why), "{error}");
        assert_eq!(world.seen().calls, 0);
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_a_mistake_of_configuration() {
    let directory = TempDir::new().expect("a directory");
    let key = Authority::new("a CA").server("127.0.0.1").key;
    let key = write(directory.path(), "key.pem", &key);
    let missing = directory.path().join("missing.pem");
    for (file, why) in [
        (&key, "no certificate in PEM form"),
        (&missing, "No such file"),
    ] {
        let file = file.to_str().expect("a path");
        let world = World::new().await;
        let finished = world.worker().env("AGORA_CA_FILE", file).finish().await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(
            finished.stderr.contains(file) && finished.stderr.contains(why),
            "{finished:?}"
        );
    }
}
