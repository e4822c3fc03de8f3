//! The documents name tests, files, headings and settings that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of all Rust files below a directory of the repository.
fn sources(directory: impl AsRef<Path>) -> String {
    let entries = std::fs::read_dir(root().join(directory)).expect("a directory");
    let text = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => read(&path),
        _ => String::new(),
    };
    entries
        .map(|entry| text(entry.expect("an entry").path()))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a text")
}

/// The source code after each log call of a level.
fn log_calls<'text>(text: &'text str, level: &str) -> Vec<&'text str> {
    text.split(&format!("tracing::{level}!(")).skip(1).collect()
}

/// The texts in backticks in the last column of a document's tables.
fn named_in_last_column(document: &str) -> Vec<&str> {
    document
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix('|')?.strip_suffix('|'))
        .filter_map(|row| row.rsplit('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let text = sources("tests") + &sources("src");
    let (guarantees, architecture) = (document("docs/guarantees.md"), document("ARCHITECTURE.md"));
    // Names of tests are sentences. Of the guarantees, a name without an underscore is a fault.
    let is_sentence = |name: &&str| name.matches('_').count() > 2;
    let mut named = named_in_last_column(&guarantees);
    named.retain(|name| is_sentence(name) || name.chars().all(char::is_alphanumeric));
    named.extend(
        named_in_last_column(&architecture)
            .into_iter()
            .filter(is_sentence),
    );
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            !text.contains(&format!("fn {name}(")) && !text.contains(&format!("Self::{name} =>"))
        })
        .collect();
    assert!(named.len() > 30, "the tables are not read: {named:?}");
    assert!(missing.is_empty(), "these are no tests: {missing:#?}");
}

/// The documents, from the root.
const DOCUMENTS: [&str; 16] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/faq.md",
    "docs/guarantees.md",
    "docs/monitoring.md",
    "docs/operation.md",
    "docs/performance.md",
    "docs/producing.md",
    "docs/reference.md",
    "docs/runbook.md",
    "docs/setup.md",
    "docs/upgrading.md",
    "examples/README.md",
];

/// The text of a document.
fn document(path: &str) -> String {
    read(&root().join(path))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> Vec<String> {
    let mut is_code = false;
    let mut anchors = Vec::new();
    for line in document.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if !is_code && heading.len() < line.len() && heading.starts_with(' ') {
            anchors.push(
                heading
                    .trim()
                    .to_lowercase()
                    .chars()
                    .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
                    .map(|character| if character == ' ' { '-' } else { character })
                    .collect(),
            );
        }
    }
    anchors
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut links = 0;
    let mut broken = Vec::new();
    for from in DOCUMENTS {
        let text = document(from);
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                root().join(from)
            } else {
                root().join(from).with_file_name(path)
            };
            let has_anchor = || anchors(&read(&path)).iter().any(|known| known == anchor);
            if !path.exists() || !anchor.is_empty() && !has_anchor() {
                broken.push(format!("{from}: {target}"));
            }
        }
    }
    assert!(links > 30, "the links are not read: {links}");
    assert!(broken.is_empty(), "these lead nowhere: {broken:#?}");
}

/// A worker that can't count messages may be unable to send them, too, because the database refuses its logins.
#[test]
fn no_log_line_of_a_failure_promises_that_messages_are_sent() {
    let text = sources("src");
    let mut lines = log_calls(&text, "warn");
    lines.extend(log_calls(&text, "error"));
    assert!(lines.len() > 30, "the sources are not read");
    for promise in [
        "messages go on",
        "sent all the same",
        "delivered all the same",
    ] {
        let promises = |line: &&str| {
            line.split(");")
                .next()
                .is_some_and(|line| line.contains(promise))
        };
        assert_eq!(lines.iter().copied().find(promises), None, "{promise}");
    }
}

#[test]
fn every_log_line_has_an_event_and_every_event_is_in_the_documents() {
    let text = sources("src");
    let mut calls = 0;
    for level in ["error", "warn", "info", "debug", "trace"] {
        for call in log_calls(&text, level) {
            calls += 1;
            let first = call.trim_start();
            let shown = first.lines().next().unwrap_or_default();
            assert!(first.starts_with("event = \""), "no event first: {shown}");
        }
    }
    let events = text.split("event = \"").skip(1);
    let in_sources: BTreeSet<_> = events.filter_map(|rest| rest.split('"').next()).collect();
    assert!(
        calls > 40 && in_sources.len() > 40,
        "the sources are not read"
    );

    let monitoring = document("docs/monitoring.md");
    let levels = ["info", "debug"];
    let listed = monitoring.lines().filter_map(|line| {
        let mut columns = line.split('|').skip(1).map(str::trim);
        let event = columns.next()?.strip_prefix('`')?.strip_suffix('`')?;
        levels.contains(&columns.next()?).then_some(event)
    });
    let runbook = document("docs/runbook.md");
    let sections = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("#### "))
        .flat_map(|heading| heading.split(", "));
    let rows: Vec<_> = listed.chain(sections).collect();
    let documented: BTreeSet<_> = rows.iter().copied().collect();
    assert_eq!(rows.len(), documented.len(), "an event is there twice");
    assert_eq!(documented, in_sources);
}

#[test]
fn every_alert_links_to_its_section_of_the_runbook() {
    let alerts = document("docker/prometheus/alerts.yml");
    let values = |key: &str| -> Vec<String> {
        let lines = alerts.lines().map(str::trim_start);
        lines
            .filter_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().to_owned())
            .collect()
    };
    let names = values("- alert:");
    let runbook = document("docs/runbook.md");
    let sections: Vec<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Signaling"))
        .map(|rest| format!("Signaling{rest}"))
        .collect();
    let links: Vec<_> = names
        .iter()
        .map(|name| format!("docs/runbook.md#{}", name.to_lowercase()))
        .collect();
    assert!(names.len() > 10, "the alerts are not read");
    assert_eq!(sections, names);
    assert_eq!(values("runbook_url:"), links);
}
