//! Completions and manual pages.

use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use testkit::Worker;

/// The output of a program for an input. None if the program is not installed.
fn piped(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("input");
    std::fs::write(&path, input).expect("written");
    let output = Command::new(program)
        .args(arguments)
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{program} is not installed: what it would say is not looked at");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[tokio::test]
async fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let finished = Worker::new(&["completions", shell]).finish().await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for phrase in ["message", "workers", "database-url"] {
            assert!(finished.stdout.contains(phrase), "{shell} lacks {phrase:?}");
        }
        if ["bash", "zsh", "fish"].contains(&shell)
            && let Some(parsed) = piped(shell, &["-n"], &finished.stdout)
        {
            assert!(parsed.status.success(), "{shell}: {parsed:?}");
        }
    }
    let finished = Worker::new(&["completions", "abacus"]).finish().await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
}

#[tokio::test]
async fn every_command_has_a_manual_page_that_formats_without_a_warning() {
    let directory = TempDir::new().expect("a directory");
    let man = directory.path().join("man1");
    let finished = Worker::new(&["man", man.to_str().expect("a path")])
        .env("DATABASE_URL", "postgres://app:hush-hush@localhost/app")
        .env("AGORA_UID", "hush-hush")
        .finish()
        .await;
    assert_eq!(finished.code, Some(0), "{finished:?}");

    let help = Worker::new(&["-h"]).finish().await.stdout;
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // Lines with a deeper indent continue a description.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"run"), "{help}");
    let mut pages = Vec::new();
    let of_commands = commands.iter().map(|command| format!("worker-{command}.1"));
    for page in of_commands.chain(["worker.1".to_owned()]) {
        let path = man.join(page);
        pages.push(
            std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        );
    }
    for page in &pages {
        assert!(page.is_ascii() && !page.contains("hush-hush"), "{page}");
        if let Some(formatted) = piped("groff", &["-man", "-Tutf8", "-ww"], page) {
            let warnings = String::from_utf8_lossy(&formatted.stderr);
            assert!(
                formatted.status.success() && warnings.is_empty(),
                "{warnings}\n{page}"
            );
        }
    }
}
