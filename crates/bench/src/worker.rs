//! The worker binaries to measure.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::ensure;
use serde::Serialize;

use crate::child_process::bench_binary;

pub(crate) const DEFAULT_NAME: &str = "worker";
const WORKER_BIN: &str = "WORKER_BIN";

/// A worker binary, and its name in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
}

impl FromStr for Worker {
    type Err = String;

    /// Parses `NAME=PATH` or `PATH`. Without a name, the file name is used.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            // A part with a slash belongs to the path.
            Some((name, path)) if !name.contains('/') => (Some(name), path),
            _ => (None, text),
        };
        let file_name = || Path::new(path).file_name()?.to_str();
        match name.or_else(file_name) {
            Some(name) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.into(),
                binary: path.into(),
            }),
            _ => Err("write the path of a worker binary, or NAME=PATH".into()),
        }
    }
}

/// The given workers, or the binary that `WORKER_BIN` names, or the one beside this program.
pub(crate) fn resolve(mut workers: Vec<Worker>) -> anyhow::Result<Vec<Worker>> {
    if workers.is_empty() {
        let binary = match std::env::var_os(WORKER_BIN).filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            None => bench_binary()?.with_file_name("worker"),
        };
        workers.push(Worker {
            name: DEFAULT_NAME.into(),
            binary,
        });
    }
    let mut names = Vec::new();
    for Worker { name, binary } in &mut workers {
        ensure!(
            !names.contains(name),
            "two workers are named {name}: write --worker NAME=PATH with different names"
        );
        names.push(name.clone());
        // The system would search a name without a slash in `PATH`.
        *binary = std::path::absolute(&binary)?;
        ensure!(
            binary.is_file(),
            "there is no worker binary at {}: run `make bench`, or `cargo build --release`, or set {WORKER_BIN} or --worker",
            binary.display()
        );
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_by_its_file_unless_a_name_is_given() {
        for (text, name, path) in [
            ("old=/tmp/worker", "old", "/tmp/worker"),
            ("/tmp/old-worker", "old-worker", "/tmp/old-worker"),
            ("/tmp/a=b/worker", "worker", "/tmp/a=b/worker"),
        ] {
            let worker: Worker = text.parse().expect("a worker");
            assert_eq!(
                (worker.name.as_str(), worker.binary.to_str()),
                (name, Some(path))
            );
        }
        for wrong in ["", "old=", "=/tmp/worker", "/"] {
            assert!(wrong.parse::<Worker>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_workers_of_the_same_name_are_refused() {
        let here = bench_binary().expect("this program");
        let worker = Worker {
            name: "same".into(),
            binary: here,
        };
        let error = resolve(vec![worker.clone(), worker]).expect_err("the same name");
        assert!(error.to_string().contains("NAME=PATH"), "{error}");
    }
}
