//! An API behind a certificate of a private CA.

use serde_json::json;
use simulator::SimulatorConfig;
use tempfile::TempDir;

use harness::{World, assert_contains};

use crate::certificates::{Authority, Certified};

/// A world whose API shows this certificate.
async fn world_with(certified: &Certified) -> World {
    let directory = TempDir::new().expect("a directory");
    let world = World::with(SimulatorConfig {
        tls: Some(certified.write(directory.path(), "server")),
        ..SimulatorConfig::default()
    })
    .await;
    assert!(world.simulator.base_url().starts_with("https://127.0.0.1:"));
    world
}

#[tokio::test]
async fn an_api_with_a_certificate_of_a_configured_ca_is_called() {
    let ca = Authority::new("the CA of the tests");
    let world = world_with(&ca.server("127.0.0.1")).await;
    let _worker = world.worker().file("AGORA_CA_FILE", &ca.pem()).start();
    world.assert_sends().await;
    assert_eq!(world.seen().calls, 1);
}

#[tokio::test]
async fn an_api_without_a_trusted_certificate_gets_no_call_and_the_row_has_the_reason() {
    let ca = Authority::new("the CA of the tests");
    let other = Authority::new("another CA");
    let unknown = "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in AGORA_CA_FILE";
    let wrong_name =
        "its certificate is not accepted: certificate not valid for name \"127.0.0.1\"";
    for (certified, trusted, why) in [
        (ca.server("127.0.0.1"), None, unknown),
        (ca.server("127.0.0.1"), Some(&other), unknown),
        (ca.server("api.example"), Some(&ca), wrong_name),
        (
            ca.expired_server("127.0.0.1"),
            Some(&ca),
            "its certificate is not accepted: certificate expired",
        ),
    ] {
        let world = world_with(&certified).await;
        let mut worker = world.worker().env("WORKER_GIVE_UP_AFTER", "1ms");
        if let Some(authority) = trusted {
            worker = worker.file("AGORA_CA_FILE", &authority.pem());
        }
        let mut worker = worker.start();
        let (_, row) = world.deliver(json!({})).await;
        assert_eq!((row.status.as_str(), row.http_status), ("failed", None));
        assert_eq!(row.attempts, 0, "the message is not at fault");
        assert_contains(&row.error.expect("an error"), &[why]);
        assert_eq!(world.seen().calls, 0);
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_a_mistake_of_configuration() {
    let world = World::new().await;
    let key = Authority::new("a CA").server("127.0.0.1").key;
    let no_certificate = world.worker().file("AGORA_CA_FILE", &key);
    let missing = "/nowhere/ca.pem";
    let no_file = world.worker().env("AGORA_CA_FILE", missing);
    let phrase = "can't be used: it has no certificate in PEM form";
    no_certificate.fails(2, &[phrase]).await;
    no_file.fails(2, &[missing, "No such file"]).await;
}
