//! A database that does not prove who it is.

use tempfile::TempDir;

use super::database_tls::{Encrypted, assert_no_password};
use harness::{Postgres, Worker, write};

use crate::certificates::Authority;

/// Asserts that no command connects, and that each one says why.
async fn refused(url: &str, why: &str) {
    for command in ["status", "run", "migrate"] {
        let command = Worker::on(url, &[command]).with_app();
        let finished = command.fails(1, &["can't be used: ", why]).await;
        assert_no_password(url, &(finished.stdout + &finished.stderr));
    }
}

#[tokio::test]
async fn a_database_without_a_trusted_certificate_is_refused_with_advice() {
    let tls = Encrypted::start(|ca| ca.server("localhost")).await;
    // A CA that was made anew has the same name and another key.
    for (file, name) in [
        ("other.pem", "another CA"),
        ("anew.pem", "the CA of the tests"),
    ] {
        write(tls.directory.path(), file, &Authority::new(name).pem());
    }
    let url = tls.postgres.migrated_database().await;
    let with_ca = |mode: &str, ca: &str| format!("sslmode={mode}&sslrootcert={}", tls.path(ca));
    let unknown = "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in sslrootcert of DATABASE_URL";
    for (host, query, why) in [
        (
            "127.0.0.1",
            with_ca("verify-full", "ca.pem"),
            "its certificate is not accepted: certificate not valid for name \"127.0.0.1\"",
        ),
        ("localhost", with_ca("verify-full", "other.pem"), unknown),
        ("localhost", with_ca("verify-ca", "other.pem"), unknown),
        ("localhost", with_ca("require", "other.pem"), unknown),
        ("localhost", with_ca("verify-full", "anew.pem"), unknown),
        ("localhost", "sslmode=verify-full".to_owned(), unknown),
    ] {
        refused(&Encrypted::url(&url, host, &query), why).await;
    }
    // Checks of each mode.
    for (host, query) in [
        ("localhost", with_ca("verify-full", "ca.pem")),
        ("127.0.0.1", with_ca("verify-ca", "ca.pem")),
        ("127.0.0.1", with_ca("prefer", "other.pem")),
        ("127.0.0.1", "sslmode=require".to_owned()),
    ] {
        let url = Encrypted::url(&url, host, &query);
        Worker::on(&url, &["status"]).succeeds().await;
    }
}

#[tokio::test]
async fn a_database_with_an_expired_certificate_or_without_tls_is_refused() {
    let expired = Encrypted::start(|ca| ca.expired_server("localhost")).await;
    let url = expired.verified(&expired.postgres.migrated_database().await);
    refused(&url, "its certificate is not accepted: certificate expired").await;

    let bare = Postgres::shared().await.migrated_database().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = Encrypted::url(&bare, "127.0.0.1", &format!("sslmode={mode}"));
        refused(&url, "no TLS connection: server does not support TLS").await;
    }
}

#[tokio::test]
async fn a_file_that_can_not_be_used_is_named_before_anything_is_sent() {
    let directory = TempDir::new().expect("a directory");
    let ca = Authority::new("a CA");
    let client = ca.client("somebody").write(directory.path(), "client");
    let (certificate, key) = (client.certificate.display(), client.key.display());
    let missing = "/nowhere/missing.pem";
    for (query, phrase) in [
        (format!("sslrootcert={missing}"), "sslrootcert: /nowhere"),
        (
            format!("sslcert={missing}&sslkey={key}"),
            "sslcert: /nowhere",
        ),
        (
            format!("sslcert={certificate}&sslkey={missing}"),
            "sslkey: /nowhere",
        ),
    ] {
        // No server listens at this address.
        let url = format!("postgres://postgres:unsaid@127.0.0.1:1/app?sslmode=verify-full&{query}");
        let status = Worker::on(&url, &["status"]);
        let finished = status.fails(2, &[phrase, "No such file"]).await;
        assert_no_password(&url, &finished.stderr);
    }
}
