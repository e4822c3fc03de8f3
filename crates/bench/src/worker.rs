//! The worker binaries that the benchmark measures.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::ensure;
use serde::Serialize;

use crate::child::bench_binary;

/// Environment variable that names another worker binary than the one beside the benchmark.
const WORKER_BIN: &str = "WORKER_BIN";
/// Name of the worker where only one is measured.
pub(crate) const DEFAULT_NAME: &str = "worker";

/// A worker binary, and the name under which the report shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
}

impl Worker {
    /// The binary that `WORKER_BIN` names, or the one beside the benchmark.
    ///
    /// # Errors
    /// If the path of the benchmark can't be read.
    pub(crate) fn default_one() -> anyhow::Result<Self> {
        let binary = match std::env::var_os(WORKER_BIN).filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            None => bench_binary()?.with_file_name("worker"),
        };
        Ok(Self {
            name: DEFAULT_NAME.into(),
            binary,
        })
    }

    /// Makes the path absolute, because a name without a slash would be searched in `PATH`.
    ///
    /// # Errors
    /// If there is no such file.
    pub(crate) fn resolve(mut self) -> anyhow::Result<Self> {
        self.binary = std::path::absolute(self.binary)?;
        ensure!(
            self.binary.is_file(),
            "there is no worker binary at {}: run `make bench`, or `cargo build --release`, or set {WORKER_BIN} or --worker",
            self.binary.display()
        );
        Ok(self)
    }
}

impl FromStr for Worker {
    type Err = String;

    /// Reads `NAME=PATH` or `PATH`. Without a name, the file name is used.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            // The part before the sign belongs to the path if it has a slash.
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

/// Checks that the report can tell the workers apart.
///
/// # Errors
/// If two have the same name.
pub(crate) fn check_names(workers: &[Worker]) -> anyhow::Result<()> {
    for (index, Worker { name, .. }) in workers.iter().enumerate() {
        ensure!(
            workers[..index].iter().all(|other| other.name != *name),
            "two workers are named {name}: write --worker NAME=PATH with different names"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String) {
        let worker: Worker = text.parse().expect("a worker");
        (worker.name, worker.binary.display().to_string())
    }

    #[test]
    fn a_worker_is_named_by_its_file_unless_a_name_is_given() {
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(parsed("old=/tmp/worker"), pair("old", "/tmp/worker"));
        assert_eq!(
            parsed("/tmp/old-worker"),
            pair("old-worker", "/tmp/old-worker")
        );
        assert_eq!(parsed("/tmp/a=b/worker"), pair("worker", "/tmp/a=b/worker"));
        for wrong in ["", "old=", "=/tmp/worker", "/"] {
            assert!(wrong.parse::<Worker>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_workers_of_the_same_name_are_refused() {
        let workers = ["/a/worker", "/b/worker"].map(|path| path.parse().expect("a worker"));
        let error = check_names(&workers).expect_err("the same name");
        assert!(error.to_string().contains("NAME=PATH"), "{error}");
    }
}
