//! Installs the packages of the examples below the target directory. Without the language or the network, a notice says
//! that a test is skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use harness::{skip, worker_binary};

/// The timeout of one step of an installation.
const PATIENCE: Duration = Duration::from_secs(600);

/// Errors of pip and npm without a network.
const SIGNS_OF_NO_NETWORK: [&str; 12] = [
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "NameResolutionError",
    "Network is unreachable",
    "EAI_AGAIN",
    "ENOTFOUND",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
];

/// The interpreter of an environment with the packages of an example's `requirements.txt`.
pub(super) async fn python_environment(example: &Path) -> Option<PathBuf> {
    let version = [
        "-c",
        "import ensurepip, sys, venv; print(sys.executable, sys.version)",
    ];
    let Some(version) = version_of("python3", &version).await else {
        skip("the example in Python: there is no python3 with venv (Debian: python3-venv)");
        return None;
    };
    let requirements = example.join("requirements.txt");
    let stamp = version + &read(&requirements);
    let installed = installed("python", &stamp, async |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory)).await?;
        run(Command::new(directory.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check"])
            .args(["--retries", "1", "--timeout", "20", "--requirement"])
            .arg(&requirements))
        .await
    })
    .await;
    Some(installed?.join("bin/python"))
}

/// A directory with the files of an example for Node and the packages of its `package-lock.json`.
pub(super) async fn node_package(example: &Path, name: &str) -> Option<PathBuf> {
    let node = version_of("node", &["--version"]).await;
    let npm = version_of("npm", &["--version"]).await;
    let Some(version) = node.zip(npm).map(|(node, npm)| node + &npm) else {
        skip("the examples for Node: there is no node with npm");
        return None;
    };
    let mut files: Vec<_> = fs::read_dir(example)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let stamp = files
        .iter()
        .fold(version, |stamp, file| stamp + &read(file));
    installed(name, &stamp, async |directory| {
        fs::create_dir(directory).expect("a directory");
        for file in &files {
            fs::copy(file, directory.join(file.file_name().expect("a name"))).expect("copied");
        }
        let npm = |arguments: &[&str]| {
            let mut command = Command::new("npm");
            command.args(arguments).current_dir(directory);
            command
        };
        let options = ["--ignore-scripts", "--no-audit", "--no-fund"];
        let patience = ["--fetch-retries=1", "--fetch-timeout=20000"];
        run(npm(&["ci"]).args(options).args(patience)).await?;
        run(&mut npm(&["run", "build", "--if-present"])).await
    })
    .await
}

/// An example of this package. Cargo builds it with the tests.
pub(super) fn cargo_example(name: &str) -> PathBuf {
    let example = worker_binary().with_file_name("examples").join(name);
    assert!(
        example.exists(),
        "{} is missing: run `cargo build --examples`",
        example.display()
    );
    example
}

struct NoNetwork;

/// A directory that `install` makes and fills, unless it exists with the same stamp. A lock keeps other processes out.
/// `None` without a network.
async fn installed(
    name: &str,
    stamp: &str,
    install: impl AsyncFnOnce(&Path) -> Result<(), NoNetwork>,
) -> Option<PathBuf> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    fs::create_dir_all(&parent).expect("a directory");
    let lock = File::create(parent.join(format!("{name}.lock"))).expect("a lock");
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .expect("waited")
        .expect("locked");

    let (directory, stamp_file) = (parent.join(name), parent.join(format!("{name}.stamp")));
    if fs::read_to_string(&stamp_file).is_ok_and(|there| there == stamp) {
        return Some(directory);
    }
    for old in [fs::remove_file(&stamp_file), fs::remove_dir_all(&directory)] {
        if let Err(error) = old {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
    if let Err(NoNetwork) = install(&directory).await {
        // The captured output would hide the notice.
        let notice = format!("skipped an example: there is no network to install {name}");
        writeln!(std::io::stderr(), "{notice}").expect("written");
        return None;
    }
    // The stamp comes last, so half of an installation has none.
    fs::write(&stamp_file, stamp).expect("written");
    Some(directory)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The version of a program. `None` if the program is missing or fails.
async fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await.ok()?.ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a step of an installation. Panics after a failure that the network did not cause.
async fn run(command: &mut Command) -> Result<(), NoNetwork> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes))
        .concat();
    if output.status.success() {
        Ok(())
    } else if SIGNS_OF_NO_NETWORK.iter().any(|sign| said.contains(sign)) {
        Err(NoNetwork)
    } else {
        panic!("{command:?} failed: {said}");
    }
}
