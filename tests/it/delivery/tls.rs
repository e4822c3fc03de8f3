//! An API behind a certificate of a private CA.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use signaling_worker::simulator::{SimulatorConfig, TlsFiles};

use crate::harness::{World, peer};

/// Writes a CA's certificate, and a certificate for 127.0.0.1 that it has signed; the CA's file and the server's.
fn make_certificates(directory: &Path) -> (PathBuf, TlsFiles) {
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .expect("parameters")
        .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
        .expect("a certificate");
    let files = TlsFiles {
        certificate: write("server.pem", certificate.pem()),
        key: write("server.key", key.serialize_pem()),
    };
    (write("ca.pem", ca_certificate.pem()), files)
}

#[tokio::test]
async fn a_private_ca_is_trusted_where_it_is_named_and_refused_otherwise() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ca, files) = make_certificates(directory.path());
    let world = World::with(SimulatorConfig {
        tls: Some(files),
        ..SimulatorConfig::default()
    })
    .await;
    assert!(world.simulator.base_url().starts_with("https://"));

    let distrusted = world.insert(peer(json!({"max_attempts": 1}))).await;
    let mut worker = world.worker().start();
    let row = world.until_final(distrusted).await;
    assert_eq!((row.status.as_str(), row.http_status), ("failed", None));
    let error = row.error.expect("an error");
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(world.seen().calls, 0);
    worker.stop().await;

    let trusted = world.insert(peer(json!({}))).await;
    let _worker = world
        .worker()
        .env("AGORA_CA_FILE", ca.to_str().expect("a path"))
        .start();
    assert_eq!(world.until_final(trusted).await.status, "message_sent");
    assert_eq!(world.seen().calls, 1);
}
