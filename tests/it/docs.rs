//! Where the documents name a test, there is one.

use std::path::Path;

/// The text of all Rust files below a directory.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &std::fs::read_to_string(&path).expect("a text");
        }
    }
}

/// What stands in backticks in the last column of a document's tables.
fn named_in_last_column(document: &str) -> Vec<&str> {
    document
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix('|')?.strip_suffix('|'))
        .filter_map(|row| row.rsplit('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for directory in ["tests", "src"] {
        sources(&root.join(directory), &mut text);
    }
    let document = std::fs::read_to_string(root.join("docs/guarantees.md")).expect("a document");
    let named = named_in_last_column(&document);
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            let is_test = text.contains(&format!("fn {name}("));
            let is_fault = text.contains(&format!("Self::{name} =>"));
            // Names of tests are sentences; other code in that column is none.
            !is_test && !is_fault && (name.matches('_').count() > 2 || !name.contains('_'))
        })
        .collect();
    assert!(named.len() > 30, "the tables are not read: {named:?}");
    assert!(missing.is_empty(), "these are no tests: {missing:#?}");
}
