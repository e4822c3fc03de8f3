//! Invisible characters around values, as in files with variables and in text that is copied from a browser.

use harness::{API_KEY, API_SECRET, APP_ID, World};
use tempfile::NamedTempFile;

#[tokio::test]
async fn a_line_break_around_any_value_changes_nothing() {
    let world = World::new().await;
    let secret_file = NamedTempFile::new().expect("a file");
    std::fs::write(secret_file.path(), format!("\u{feff}{API_SECRET}\r\n")).expect("written");
    let from_file = world.worker().without_env("AGORA_API_SECRET").env(
        "AGORA_API_SECRET_FILE",
        &format!("{}\r\n", secret_file.path().display()),
    );
    let from_variable = world
        .worker()
        .env("AGORA_API_SECRET", &format!("{API_SECRET}\u{a0}\r\n"));
    let base_url = world.simulator.base_url();
    for worker in [from_variable, from_file] {
        let mut worker = worker
            .env("DATABASE_URL", &format!(" {}\r\n", world.url))
            .env("AGORA_APP_ID", &format!("{APP_ID}\n"))
            .env("AGORA_API_KEY", &format!("\u{feff}{API_KEY}\r"))
            .env("AGORA_BASE_URL", &format!("{base_url}\r\n"))
            .start();
        world.assert_sends().await;
        worker.stop().await;
        assert_eq!(worker.logged("lane_held"), 0);
    }
}
