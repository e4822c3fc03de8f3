//! Help texts, completions and manual pages. The texts themselves are in docs/reference.md.

use std::process::{Command, Output};

use tempfile::TempDir;

use harness::{Worker, assert_contains, write};

/// The commands that the help lists.
async fn commands() -> Vec<String> {
    let help = Worker::new(&["-h"]).succeeds().await;
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // Lines with a deeper indent continue a description.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
        .collect();
    assert!(commands.len() > 15, "{help}");
    commands
}

#[tokio::test]
async fn the_help_of_each_command_has_examples() {
    let help = Worker::new(&["--help"]).succeeds().await;
    assert_contains(&help, &["worker dev ", "Exit codes: 0 done, 1 failed"]);
    for command in commands().await {
        let help = Worker::new(&[&command, "--help"]).succeeds().await;
        assert!(help.contains("Example"), "{command}: {help}");
    }
}

#[tokio::test]
async fn help_shows_no_secret_of_the_environment() {
    let help = Worker::on("postgres://app:hush-hush@localhost/app", &["run", "--help"])
        .env("AGORA_API_SECRET", "hush-hush")
        .env("AGORA_TOKEN", "hush-hush")
        .succeeds()
        .await;
    assert!(!help.contains("hush-hush"), "{help}");
}

#[tokio::test]
async fn a_missing_command_is_an_error_that_shows_the_help() {
    Worker::new(&[]).fails(2, &["Usage: worker"]).await;
}

#[tokio::test]
async fn version_prints_the_version() {
    let printed = Worker::new(&["--version"]).succeeds().await;
    let expected = concat!("worker ", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed.trim(), expected);
}

/// The output of a program for a text in a file. None if the program is not installed.
fn output(program: &str, arguments: &[&str], text: &str) -> Option<Output> {
    let directory = TempDir::new().expect("a directory");
    let input = write(directory.path(), "input", text);
    match Command::new(program).args(arguments).arg(input).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{program} is not installed, so it checks nothing");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[tokio::test]
async fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Worker::new(&["completions", shell]).succeeds().await;
        for phrase in ["message", "workers", "database-url"] {
            assert!(script.contains(phrase), "{shell} lacks {phrase:?}");
        }
        if ["bash", "zsh", "fish"].contains(&shell)
            && let Some(parsed) = output(shell, &["-n"], &script)
        {
            assert!(parsed.status.success(), "{shell}: {parsed:?}");
        }
    }
    let unknown = Worker::new(&["completions", "abacus"]);
    unknown.fails(2, &["abacus"]).await;
}

#[tokio::test]
async fn every_command_has_a_manual_page_that_formats_without_a_warning() {
    let directory = TempDir::new().expect("a directory");
    let man = directory.path().join("man1");
    Worker::new(&["man", man.to_str().expect("a path")])
        .env("DATABASE_URL", "postgres://app:hush-hush@localhost/app")
        .env("AGORA_UID", "hush-hush")
        .succeeds()
        .await;
    let of_commands = commands().await.into_iter();
    let of_commands = of_commands.map(|command| format!("worker-{command}.1"));
    for name in of_commands.chain(["worker.1".to_owned()]) {
        let page = std::fs::read_to_string(man.join(&name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.is_ascii() && !page.contains("hush-hush"), "{page}");
        if let Some(formatted) = output("groff", &["-man", "-Tutf8", "-ww"], &page) {
            let warnings = String::from_utf8_lossy(&formatted.stderr);
            let is_clean = formatted.status.success() && warnings.is_empty();
            assert!(is_clean, "{warnings}\n{page}");
        }
    }
}
