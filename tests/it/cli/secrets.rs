//! What no output shows.

use serde_json::json;
use signaling_worker::simulator::{Credentials, GivenToken};

use crate::harness::{API_KEY, API_SECRET, APP_ID, World, channel, peer};

const PAYLOAD: &str = "a payload that is nobody else's business";
const TOKEN: &str = "007token-that-nobody-may-see";
const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";

/// The password in a URL.
fn password(url: &str) -> &str {
    let (_, rest) = url.split_once("//postgres:").expect("a password");
    rest.split_once('@').expect("a host").0
}

fn assert_silent(output: &str, secrets: &[&str]) {
    assert!(!output.is_empty());
    for secret in secrets {
        let line = output.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret:?} is shown");
    }
}

#[tokio::test]
async fn a_faulty_run_at_the_finest_log_level_shows_no_secret_and_no_payload() {
    for format in ["text", "json"] {
        let world = World::new().await;
        world.set_faults(&[
            "401:count=1",
            "500:destination=f500",
            "400:destination=f400",
            "drop:destination=drop",
            "garbage:destination=garbage",
            "half_body:destination=half",
            // An API that says back what it was told.
            &format!(
                "400:destination=echo,body={{\"result\":\"failed\",\"payload\":\"{PAYLOAD}\"}}"
            ),
            &format!("500:destination=text,body={PAYLOAD}"),
        ]);
        for destination in [
            "f500", "f400", "drop", "garbage", "half", "echo", "text", "fine",
        ] {
            let message =
                json!({"destination": destination, "payload": PAYLOAD, "max_attempts": 2});
            world.insert(peer(message)).await;
        }
        world.insert(channel(json!({"payload": PAYLOAD}))).await;
        let mut worker = world
            .worker()
            .env("WORKER_LOG", "trace")
            .env("WORKER_LOG_FORMAT", format)
            .start();
        world.until_all_final().await;
        // A database that fails is logged too.
        world
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and application_name = 'signaling-worker'",
            )
            .await;
        worker.until_logged("the doorbell is lost").await;
        worker.stop().await;
        let pair = "a2V5LW9mLXRoZS10ZXN0czpzZWNyZXQtb2YtdGhlLXRlc3Rz";
        let secrets = [API_KEY, API_SECRET, pair, PAYLOAD, password(&world.url)];
        assert_silent(&worker.stderr.whole_text(), &secrets);
        assert_eq!(worker.stdout.whole_text(), "");
        let errors: String = world
            .ask("select coalesce(string_agg(error, '; '), '') from signaling.attempt")
            .await;
        assert_silent(&errors, &secrets);
    }
}

#[tokio::test]
async fn tokens_and_certificates_are_not_shown_either() {
    let world = World::new().await;
    let credentials = Credentials {
        tokens: vec![GivenToken {
            token: TOKEN.to_owned(),
            uid: None,
        }],
        app_certificates: vec![CERTIFICATE.to_owned()],
        ..Credentials::default()
    };
    world.set_credentials(credentials);
    let signed_in = [
        vec![("AGORA_TOKEN", TOKEN), ("AGORA_UID", "alice")],
        vec![
            ("AGORA_TOKEN", TOKEN),
            ("AGORA_UID", "alice"),
            ("AGORA_TOKEN_HEADERS", "authorization"),
        ],
        vec![("AGORA_APP_CERTIFICATE", CERTIFICATE)],
    ];
    for variables in signed_in {
        let mut worker = world.worker_without_app().env("AGORA_APP_ID", APP_ID);
        for (name, value) in variables {
            worker = worker.env(name, value);
        }
        let mut worker = worker.env("WORKER_LOG", "trace").start();
        world.set_faults(&["401:count=1"]);
        let id = world.insert(peer(json!({"payload": PAYLOAD}))).await;
        world.until_final(id).await;
        worker.stop().await;
        // A made token begins like every token.
        let secrets = [
            TOKEN,
            CERTIFICATE,
            "token=007",
            PAYLOAD,
            password(&world.url),
        ];
        assert_silent(&worker.stderr.whole_text(), &secrets);
    }
}

#[tokio::test]
async fn other_commands_show_no_secret_and_no_payload_at_the_finest_log_level() {
    let world = World::new().await;
    let line = json!({"sender": "alice", "destination": "bob", "payload": PAYLOAD}).to_string();
    let broken = format!("{line}\n{{\"sender\": \"alice\", \"payload\": \"{PAYLOAD}\"}}\n");
    let refused =
        json!({"sender": "alice", "destination": "bob", "payload": PAYLOAD, "max_attempts": 0});
    for (worker, code) in [
        (world.command(&["migrate"]), 0),
        (world.command(&["enqueue", "--stdin"]).input(&line), 0),
        (world.command(&["enqueue", "--stdin"]).input(&broken), 2),
        (
            world
                .command(&["enqueue", "--stdin"])
                .input(&refused.to_string()),
            2,
        ),
        (world.command(&["status"]), 0),
    ] {
        let finished = worker.env("WORKER_LOG", "trace").finish().await;
        let output = finished.stdout + &finished.stderr;
        assert_silent(&output, &[PAYLOAD, password(&world.url)]);
        assert_eq!(finished.code, Some(code), "{output}");
    }
}
