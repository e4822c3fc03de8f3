//! Values with something around them that nobody sees, as files of variables and copies from a browser bring it.

use serde_json::json;

use testkit::{API_KEY, API_SECRET, APP_ID, World, peer, write};

#[tokio::test]
async fn a_line_break_around_any_value_changes_nothing() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!("\u{feff}{API_SECRET}\r\n");
    let secret_file = write(directory.path(), "secret", &text);
    let secret_file = secret_file.to_str().expect("a path");
    let from_file = world
        .worker()
        .without_env("AGORA_API_SECRET")
        .env("AGORA_API_SECRET_FILE", &format!("{secret_file}\r\n"));
    let from_variable = world
        .worker()
        .env("AGORA_API_SECRET", &format!("{API_SECRET}\u{a0}\r\n"));
    for worker in [from_variable, from_file] {
        let mut worker = worker
            .env("DATABASE_URL", &format!(" {}\r\n", world.url))
            .env("AGORA_APP_ID", &format!("{APP_ID}\n"))
            .env("AGORA_API_KEY", &format!("\u{feff}{API_KEY}\r"))
            .env(
                "AGORA_BASE_URL",
                &format!("{}\r\n", world.simulator.base_url()),
            )
            .start();
        let id = world.insert(peer(json!({}))).await;
        assert_eq!(world.until_final(id).await.status, "message_sent");
        worker.stop().await;
        assert_eq!(worker.logged("setting_suspicious"), 0);
        assert_eq!(worker.logged("lane_held"), 0);
    }
}

#[tokio::test]
async fn quotation_marks_around_a_secret_are_logged_at_the_start() {
    let world = World::new().await;
    let mut worker = world
        .worker()
        .env("AGORA_API_SECRET", &format!("'{API_SECRET}'"))
        .start();
    worker.until_logged("setting_suspicious").await;
    let line = worker.log_line("setting_suspicious");
    assert!(line.contains("AGORA_API_SECRET"), "{line}");
    assert!(!line.contains(API_SECRET), "{line}");
    worker.stop().await;
}
