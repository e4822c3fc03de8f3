//! The changelog, the packages and the lock files name the version of Cargo.toml.

use std::path::Path;

use harness::{World, ask, peer};
use sqlx::Connection;

use crate::schema::roles::Role;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_changelog_has_a_section_for_this_version() {
    let changelog = text("CHANGELOG.md");
    let has_section = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .any(|heading| heading.split([' ', '[', ']']).any(|word| word == VERSION));
    assert!(has_section, "CHANGELOG.md has no heading `## {VERSION}`");
}

#[test]
fn the_packages_and_lock_files_name_this_version() {
    let image = format!("image: signaling-worker:{VERSION}\n");
    let locked = format!("name = \"signaling-worker\"\nversion = \"{VERSION}\"\n");
    for (path, line) in [
        ("docker/kubernetes/worker.yaml", image.clone()),
        ("docker/kubernetes/migrate.yaml", image),
        ("docker/helm/Chart.yaml", format!("\nversion: {VERSION}\n")),
        (
            "docker/helm/Chart.yaml",
            format!("\nappVersion: {VERSION}\n"),
        ),
        ("fuzz/Cargo.lock", locked),
    ] {
        let is_named = text(path).contains(&line);
        assert!(is_named, "{path} does not contain {line:?}");
    }
}

/// The text of `query: >-` in keda.yaml: the lines that are indented further.
fn keda_query() -> String {
    let manifest = text("docker/kubernetes/keda.yaml");
    let (_, rest) = manifest.split_once("query: >-\n").expect("a query");
    rest.lines()
        .take_while(|line| line.starts_with("          "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn a_readers_keda_query_counts_the_backlog_in_hours_of_the_limit() {
    let world = World::new().await;
    let reader = Role::granted(&world, "reader").await;
    let reader = sqlx::PgConnection::connect(&reader.url).await;
    let mut reader = reader.expect("connected");
    let query = keda_query();
    let mut hours = async || -> f64 { ask(&mut reader, &query).await };
    world.open_lane("default").await;
    assert_eq!(hours().await.to_bits(), 0_f64.to_bits());

    // An uncounted backlog is above zero, so that the first worker starts.
    world.insert(peer(serde_json::json!({}))).await;
    let uncounted = hours().await;
    assert!(uncounted > 0.0 && uncounted < 0.1, "{uncounted}");

    world
        .execute(
            "select signaling.refresh_queue_counts();
                  update signaling.queue_counts set queued = 540000",
        )
        .await;
    let counted = hours().await;
    assert!((counted - 1.5).abs() < 0.000_001, "{counted}");
}
