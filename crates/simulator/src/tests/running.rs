//! Start, stop, TLS, and the control API.

use super::*;

#[tokio::test]
async fn a_stopped_api_refuses_connections_and_can_come_back() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    client.send("bob", "before").await.unwrap();
    simulator.stop().await;
    assert!(client.send("bob", "meanwhile").await.is_err());
    assert!(TcpStream::connect(simulator.address).await.is_err());

    let config = SimulatorConfig {
        bind: simulator.address,
        ledger: Arc::clone(simulator.ledger()),
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let mut client = Client::new(&simulator).await;
    client.send("bob", "after").await.unwrap();
    let payloads: Vec<_> = simulator
        .ledger()
        .calls()
        .into_iter()
        .map(|call| call.payload)
        .collect();
    assert_eq!(
        payloads,
        [Some("before".to_owned()), Some("after".to_owned())]
    );
}

#[tokio::test]
async fn the_control_api_shows_calls_changes_faults_and_does_not_count() {
    let simulator = started(&[]).await;
    let mut client = Client::new(&simulator).await;
    client.send("bob", "hello").await.unwrap();
    client.send("bob", "goodbye").await.unwrap();
    let reply = client
        .request("GET", "/_simulator/calls", String::new())
        .await
        .unwrap();
    assert_eq!(reply.body.as_array().unwrap().len(), 2);
    assert_eq!(reply.body[1]["payload"], "goodbye");

    for (rules, status) in [
        ("503:count=1\ndrop:share=0.5\n", StatusCode::NO_CONTENT),
        ("explode", StatusCode::BAD_REQUEST),
    ] {
        let reply = client
            .request("PUT", "/_simulator/faults", rules.to_owned())
            .await
            .unwrap();
        assert_eq!(reply.status, status);
        assert_eq!(simulator.faults().len(), 2);
    }
    let reply = client
        .request("GET", "/_simulator/ledger", String::new())
        .await
        .unwrap();
    assert_eq!(reply.body["calls"], 2);
}

#[tokio::test]
async fn the_api_serves_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let simulator = Simulator::start(SimulatorConfig {
        tls: Some(files),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    assert!(simulator.base_url().starts_with("https://127.0.0.1:"));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(simulator.address).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let reply = Client { sender }.send("bob", "hello").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_simulator_that_cannot_start_says_why() {
    let first = started(&[]).await;
    let taken = SimulatorConfig {
        bind: first.address,
        ..SimulatorConfig::default()
    };
    let error = Simulator::start(taken).await.err().unwrap().to_string();
    assert!(error.starts_with("can't listen on 127.0.0.1:"), "{error}");

    let missing = SimulatorConfig {
        tls: Some(TlsFiles {
            certificate: "/nowhere/certificate.pem".into(),
            key: "/nowhere/key.pem".into(),
        }),
        ..SimulatorConfig::default()
    };
    let error = Simulator::start(missing).await.err().unwrap().to_string();
    assert_eq!(error, "can't read /nowhere/certificate.pem");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let simulator = started(&[]).await;
    simulator.behaviour().idle_close_ms = Some(100);
    let mut client = Client::new(&simulator).await;
    client.send("bob", "hello").await.unwrap();
    until(&simulator, |seen| seen.open_connections == 0).await;
    assert!(client.send("bob", "too late").await.is_err());

    simulator.behaviour().closes_connections = true;
    simulator.behaviour().idle_close_ms = None;
    let mut client = Client::new(&simulator).await;
    let reply = client.send("bob", "once").await.unwrap();
    assert_eq!(reply.headers["connection"], "close");
    assert!(client.send("bob", "twice").await.is_err());
    assert_eq!(simulator.ledger().summary().connections, 2);
}
