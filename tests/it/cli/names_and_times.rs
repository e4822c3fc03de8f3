//! Commands that are given an app, a message or a time that does not exist say so.

use serde_json::json;

use testkit::{World, peer};

async fn failed_message(world: &World, app: &str) -> i64 {
    let id = world.insert(peer(json!({"app": app}))).await;
    world
        .set_messages(&format!(
            "status = 'failed', attempts = 1, finished_at = now() where id = {id}"
        ))
        .await;
    id
}

#[tokio::test]
async fn every_command_refuses_an_unknown_app() {
    let world = World::new().await;
    world
        .execute(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('shop', 100, 100, 98)",
        )
        .await;
    for arguments in [
        &["retry", "--app", "nosuch"][..],
        &["retry", "--app", "nosuch", "--dry-run"],
        &["pause", "nosuch"],
        &["resume", "nosuch"],
        &["limit", "nosuch", "5"],
        &[
            "adopt",
            "nosuch",
            "--environment",
            "tests",
            "--send-pending",
        ],
    ] {
        let finished = world.command(arguments).finish().await;
        assert_eq!(finished.code, Some(1), "{arguments:?}: {finished:?}");
        let said = "there is no app 'nosuch' (the apps are: shop)";
        assert!(
            finished.stderr.contains(said),
            "{arguments:?}: {finished:?}"
        );
    }
    // Apps with a lane or with messages exist, also if nothing matches.
    failed_message(&world, "new").await;
    for app in ["shop", "new"] {
        let retry = world.command(&["retry", "--app", app, "--status", "unknown"]);
        retry.succeeds().await;
    }
}

#[tokio::test]
async fn retry_names_messages_that_do_not_exist() {
    let world = World::new().await;
    let failed = failed_message(&world, "default").await.to_string();
    for dry_run in [&["--dry-run"][..], &[]] {
        let retry = ["retry", "--id", &failed, "--id", "4711"];
        let finished = world
            .command(&[&retry[..], dry_run].concat())
            .finish()
            .await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let missing = "4711 is not sent again: there is no such message\n1 message ";
        assert!(finished.stdout.starts_with(missing), "{finished:?}");
        assert!(finished.stderr.contains("--id names exist"), "{finished:?}");
    }
    assert_eq!(world.count("status = 'pending'").await, 1);
}

#[tokio::test]
async fn a_date_is_its_midnight_in_utc_and_other_texts_are_refused() {
    let world = World::new().await;
    let id = failed_message(&world, "default").await;
    let finish = async |since: &str, until: &str| {
        let arguments = ["retry", "--dry-run", "--since", since, "--until", until];
        world.command(&arguments).finish().await
    };
    for (finished_at, expected) in [
        ("2026-01-31T00:00:00Z", "1 message"),
        ("2026-01-30T23:59:59Z", "0 messages"),
    ] {
        world
            .set_messages(&format!("finished_at = '{finished_at}' where id = {id}"))
            .await;
        let finished = finish("2026-01-31", "2026-02-01").await;
        let said = format!("{expected} would be sent again\n");
        assert_eq!(finished.stdout, said, "{finished:?}");
    }
    for (since, until, phrase) in [
        (
            "tomorrow",
            "2026-01-31",
            "write a time with its offset from UTC, like 2030-01-31T12:00:00Z",
        ),
        (
            "2026-01-31T12:00:00",
            "2026-01-31",
            "or a date like 2030-01-31",
        ),
    ] {
        let finished = finish(since, until).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(phrase), "{phrase:?}: {finished:?}");
    }
}
