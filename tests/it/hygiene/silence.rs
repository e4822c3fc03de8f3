//! No output shows a payload or a secret. The tests search logs, reports and rows of runs with many faults.

use std::fs;
use std::path::Path;

use serde_json::json;
use simulator::Credential;

use super::markers::{Marker, assert_silent, marker};
use harness::{APP_ID, Finished, Worker, World, assert_contains, channel, peer, write};

const PAYLOAD: &str = "Zebra \"Größe\" 7364528190 of nobody else";
const KEY: &str = "Kq7ZebraKey918273";
const SECRET: &str = "Sv4ZebraSecret564738";
const TOKEN: &str = "007ZebraToken12093487==";
const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";

/// The password in a URL.
fn password(url: &str) -> &str {
    let (_, rest) = url.split_once("//postgres:").expect("a password");
    rest.split_once('@').expect("a host").0
}

fn markers(world: &World) -> Vec<Marker> {
    vec![
        marker("the payload", PAYLOAD),
        marker("the payload's number", "7364528190"),
        marker("the key", KEY),
        marker("the secret", SECRET),
        marker("the given token", TOKEN),
        marker("a made token", "token=007"),
        marker("the certificate", CERTIFICATE),
        marker("the database's password", password(&world.url)),
    ]
}

fn accept_all(world: &World) {
    world.simulator.behaviour().credentials = vec![
        Credential::Key {
            api_key: KEY.to_owned(),
            api_secret: SECRET.to_owned(),
        },
        Credential::Token {
            token: TOKEN.to_owned(),
            uid: None,
        },
        Credential::Certificate(CERTIFICATE.to_owned()),
    ];
}

/// A configuration with an app for each kind of credentials. Some secrets are in their own files.
fn configuration(directory: &Path) -> String {
    let (secret, token) = (
        write(directory, "secret", SECRET),
        write(directory, "token", TOKEN),
    );
    let (secret, token) = (secret.display(), token.display());
    format!(
        "[apps.basic]\napp_id = \"{APP_ID}\"\napi_key = \"{KEY}\"\napi_secret_file = \"{secret}\"\n
         [apps.given]\napp_id = \"given\"\ntoken_file = \"{token}\"\nuid = \"alice\"\n
         [apps.made]\napp_id = \"made\"\napp_certificate = \"{CERTIFICATE}\"\n"
    )
}

const APPS: [&str; 3] = ["basic", "given", "made"];

/// Sets faults, each for one destination.
fn set_faults(world: &World) {
    let echo = json!({"result": "failed", "payload": PAYLOAD, "reason": format!("can't send {PAYLOAD:?}")});
    world.set_faults(&[
        "401:count=1,destination=f401",
        "429:destination=f429,first_calls=1",
        "500:destination=f500",
        "400:destination=f400",
        "drop:destination=drop",
        "hang:destination=hang",
        "garbage:destination=garbage",
        "half_body:destination=half",
        &format!("400:destination=echo,body={echo}"),
        &format!("500:destination=text,body={PAYLOAD}"),
    ]);
}

/// A trigger that raises payloads in warnings and errors, and refuses each record.
const LOUD_TRIGGER: &str = "
    create function loud() returns trigger language plpgsql as $$
    begin
        raise warning 'I see %', new.payload;
        if new.finished_at is not null then
            raise exception 'I refuse %', new.payload;
        end if;
        return new;
    end $$;
    create trigger loud before update on signaling.outbox
        for each row when (new.destination = 'loud') execute function loud();";

#[tokio::test]
async fn a_run_with_every_fault_shows_no_secret_and_no_payload() {
    for format in ["text", "json"] {
        let world = World::new().await;
        let directory = tempfile::tempdir().expect("a directory");
        let markers = markers(&world);
        accept_all(&world);
        set_faults(&world);
        let mut worker = world
            .worker_without_app()
            .file("WORKER_CONFIG", &configuration(directory.path()))
            .env("WORKER_REQUEST_TIMEOUT", "500ms")
            // A message that fails alone at the end is not charged.
            .env("WORKER_GIVE_UP_AFTER", "10s")
            .env("WORKER_LOG", "trace,sqlx::postgres::notice=trace")
            .env("WORKER_LOG_FORMAT", format)
            .start();
        for app in APPS {
            for destination in [
                "f401", "f429", "f500", "f400", "drop", "hang", "garbage", "half", "echo", "text",
                "fine",
            ] {
                let message = json!({"app": app, "destination": destination, "payload": PAYLOAD, "max_attempts": 2});
                world.insert(peer(message)).await;
            }
            world
                .insert(channel(json!({"app": app, "payload": PAYLOAD})))
                .await;
        }
        world.until_all_final().await;
        assert_silent("the command line", &worker.command_line(), &markers);

        // The worker loses its connections, and the database refuses a record.
        world.terminate_workers().await;
        worker.until_logged("listener_lost").await;
        world.execute(LOUD_TRIGGER).await;
        let loud = json!({"app": "basic", "destination": "loud", "payload": PAYLOAD});
        world.insert(peer(loud)).await;
        worker.until_logged("record_refused").await;

        // A secret file disappears, and the worker stops during a hold.
        fs::remove_file(directory.path().join("secret")).expect("removed");
        let lost = json!({"app": "basic", "destination": "fine", "payload": PAYLOAD});
        world.insert(peer(lost)).await;
        world
            .until_true("select hold is not null from signaling.lane where app = 'basic'")
            .await;
        worker.until_logged("lane_held").await;
        let report = world.run(&["status", "--json"]).await;
        worker.stop().await;

        assert_silent("the log", &worker.stderr.text(), &markers);
        assert_eq!(worker.stdout.text(), "");
        assert_silent("worker status", &report, &markers);
        let kept: String = world
            .ask(
                "select coalesce((select string_agg(concat_ws(' ', error, request_id, claimed_by), E'\\n') from signaling.outbox), '')
                     || coalesce((select string_agg(concat_ws(' ', error, claimed_by), E'\\n') from signaling.attempt), '')
                     || coalesce((select string_agg(lane::text, E'\\n') from signaling.lane), '')",
            )
            .await;
        assert_contains(&kept, &["HTTP 400", "not kept"]);
        assert_silent("the database", &kept, &markers);
        // The worker did send the payload.
        assert!(world.calls_of(PAYLOAD).len() > 30);
    }
}

/// Asserts that the command ends with this code and shows no secret.
async fn assert_shows_no_secret(command: Worker, code: i32, markers: &[Marker]) -> Finished {
    let finished = command.finish().await;
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_silent("standard error", &finished.stderr, markers);
    assert_silent("standard output", &finished.stdout, markers);
    finished
}

#[tokio::test]
async fn a_command_at_level_trace_shows_no_secret() {
    let world = World::new().await;
    for command in ["migrate", "status"] {
        let command = world.command(&[command]).env("WORKER_LOG", "trace");
        assert_shows_no_secret(command, 0, &markers(&world)).await;
    }
}

#[tokio::test]
async fn an_error_in_the_settings_is_reported_without_a_secret() {
    let world = World::new().await;
    let markers = markers(&world);
    for lines in [
        &format!("api_key = \"{KEY}\"\napi_secret = \"{SECRET}"),
        &format!("api_secrit = \"{SECRET}\""),
        &format!("{SECRET} = \"x\""),
        SECRET,
        &format!("rate = \"{SECRET}\""),
        "api_secret = 7364528190",
        &format!("token_headers = \"{TOKEN}\"\ntoken = \"{TOKEN}\"\nuid = \"u\""),
        &format!("base_url = \"{SECRET}\"\napi_key = \"{KEY}\"\napi_secret = \"x\""),
        &format!("base_url = \"https://{SECRET}@host/\"\napi_key = \"{KEY}\"\napi_secret = \"x\""),
        &format!(
            "api_key = \"{KEY}\"\napi_secret = \"{SECRET}\"\ntoken = \"{TOKEN}\"\nuid = \"u\""
        ),
    ] {
        let text = format!("[apps.a]\napp_id = \"a\"\n{lines}");
        let run = world.command(&["run"]).file("WORKER_CONFIG", &text);
        assert_shows_no_secret(run.env("WORKER_LOG", "trace"), 2, &markers).await;
    }
    // An error shows neither the value of a misspelt parameter nor the lines of a password file.
    let (_, server) = world.url.split_once('@').expect("a host");
    let url = format!("postgres://postgres@{server}&passwrd={SECRET}&{SECRET}=x");
    let status = Worker::on(&url, &["status"])
        .file("PGPASSFILE", &format!("localhost:{SECRET}\n"))
        .env(
            "WORKER_LOG",
            "trace,sqlx_postgres::options=trace,sqlx_postgres::options::pgpass=trace",
        );
    assert_shows_no_secret(status, 1, &markers).await;
    // A password that is not percent-encoded does not appear as a host or a port.
    for url in [
        &format!("postgres://{SECRET}/x@localhost/app"),
        "postgres://app:7364/528190@localhost/app",
        &format!("mysql://app:{SECRET}@localhost/app"),
        SECRET,
    ] {
        for command in ["status", "migrate"] {
            let finished = assert_shows_no_secret(Worker::on(url, &[command]), 2, &markers).await;
            assert!(!finished.stderr.contains("7364"), "{finished:?}");
        }
    }
}
