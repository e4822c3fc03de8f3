//! PostgreSQL's programs on this machine, and the user that may run them.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

use crate::command_without_settings;

/// The variable that names the directory of PostgreSQL's programs.
const BINDIR_VARIABLE: &str = "WORKER_PG_BINDIR";

/// Directories with a subdirectory for each version, and the prefix of its name.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql"),
    ("/usr/local/opt", "postgresql"),
];

const LOOKED_IN: &str = "on PATH, in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql*/bin, \
                         /usr/local/opt/postgresql*/bin, and where `pg_config --bindir` points";

/// A cluster in memory holds its WAL and the databases of simultaneous tests.
const MIN_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Working programs of PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    /// The directory of `initdb` and `postgres`.
    pub(super) bindir: PathBuf,
    /// For example `postgres (PostgreSQL) 17.2`.
    pub(super) version: String,
    /// User and group to run the programs as, because PostgreSQL refuses to run as root.
    account: Option<(u32, u32)>,
}

impl Installation {
    /// Finds the programs in `bindir`, or in the directory that the environment names, or in the usual directories.
    pub(super) async fn find(bindir: Option<PathBuf>) -> anyhow::Result<Self> {
        let account = account()?;
        let named = bindir.or_else(|| env::var_os(BINDIR_VARIABLE).map(PathBuf::from));
        let (candidates, looked_in) = match named {
            Some(bindir) => {
                let looked_in = format!("in {}", bindir.display());
                (vec![bindir], looked_in)
            }
            None => (usual_directories().await, LOOKED_IN.to_owned()),
        };
        let mut unusable = String::new();
        for bindir in candidates {
            let programs = ["initdb", "postgres"].map(|program| bindir.join(program));
            if !programs.iter().all(|program| program.is_file()) {
                continue;
            }
            match version(&bindir, account).await {
                Ok(version) => {
                    return Ok(Self {
                        bindir,
                        version,
                        account,
                    });
                }
                Err(error) => {
                    unusable = format!(" (that in {} does not run: {error:#})", bindir.display());
                }
            }
        }
        bail!(
            "found no PostgreSQL server: looked for `initdb` and `postgres` {looked_in}{unusable}. Install it (Debian, \
             Ubuntu: `apt-get install postgresql`; Fedora: `dnf install postgresql-server`; macOS: `brew install \
             postgresql`) or name the directory of its programs in {BINDIR_VARIABLE}"
        )
    }

    /// A command that runs as the user of the server.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command(program, self.account)
    }

    /// Writes a file that only the server can read. PostgreSQL refuses a private key that other users can read.
    pub(crate) fn write_for_server(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        file.write_all(text.as_bytes())?;
        match self.account {
            Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// The directory for the cluster's directory: the user's TMPDIR, or memory if there is room. A new database then takes a
/// sixth of the time.
pub(super) fn parent_directory(is_durable: bool) -> PathBuf {
    const IN_MEMORY: &str = "/dev/shm";
    // In containers it is often too small.
    let has_room = rustix::fs::statvfs(IN_MEMORY)
        .is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= MIN_MEMORY_BYTES);
    let usual = if has_room && !is_durable {
        IN_MEMORY
    } else {
        "/tmp"
    };
    env::var_os("TMPDIR").map_or_else(|| usual.into(), PathBuf::from)
}

/// User and group to run PostgreSQL as, or `None` for the present user.
fn account() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let id = |flag: &str, name: &str| -> Option<u32> {
        let output = process::Command::new("id").args([flag, name]).output();
        String::from_utf8(output.ok()?.stdout)
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(Some((id("-u", name)?, id("-g", name)?))))
        .context(
            "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`: start this as another user",
        )
}

fn command(program: impl AsRef<OsStr>, account: Option<(u32, u32)>) -> Command {
    // PGDATA, PGOPTIONS and the like are for the user's own clusters.
    let mut command = command_without_settings(program);
    command.env("LC_ALL", "C");
    if let Some((uid, gid)) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs the server as its later user, which shows whether that user can execute it.
async fn version(bindir: &Path, account: Option<(u32, u32)>) -> anyhow::Result<String> {
    // The server fails to start in a directory that its user can't read.
    let output = command(bindir.join("postgres"), account)
        .arg("--version")
        .current_dir("/")
        .output()
        .await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        error.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn usual_directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .collect();
    for (parent, prefix) in VERSIONED {
        directories.extend(versions(Path::new(parent), prefix));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        directories.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    directories
}

/// `parent/prefix*/bin`, the highest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort_by_cached_key(|name| Reverse(version_numbers(name)));
    let bindirs = names.into_iter().map(|name| parent.join(name).join("bin"));
    bindirs.collect()
}

/// Numbers sort 10 after 9.6.
fn version_numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number_the_highest_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9.6", "17", "10", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<_> = versions(parent.path(), "")
            .iter()
            .map(|bin| bin.parent().unwrap().file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["17", "10", "9.6", "other"]);
        assert_eq!(versions(parent.path(), "1").len(), 2);
    }
}
