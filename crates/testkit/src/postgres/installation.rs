//! PostgreSQL's programs on this machine, and the user that may run them.

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

const LOOKED_IN: &str = "on PATH, in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql*/bin, \
                         /usr/local/opt/postgresql*/bin, and where `pg_config --bindir` points";
/// Prints these directories, the highest version of a package first.
const LIST_DIRECTORIES: &str = r#"printf '%s\n' "$PATH" | tr : '\n' | grep ^/
ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin | sort -rV
pg_config --bindir"#;

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
            let mut installation = Self {
                bindir,
                version: String::new(),
                account,
            };
            match installation.server_version().await {
                Ok(version) => {
                    installation.version = version;
                    return Ok(installation);
                }
                Err(error) => {
                    let bindir = installation.bindir.display();
                    unusable = format!(" (that in {bindir} does not run: {error:#})");
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
        // PGDATA, PGOPTIONS and the like are for the user's own clusters.
        let mut command = command_without_settings(program);
        command.env("LC_ALL", "C");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs the server as its later user, which shows whether that user can execute it.
    async fn server_version(&self) -> anyhow::Result<String> {
        // The server fails to start in a directory that its user can't read.
        let mut command = self.command(self.bindir.join("postgres"));
        let output = command.arg("--version").current_dir("/").output().await?;
        let (status, error) = (output.status, String::from_utf8_lossy(&output.stderr));
        ensure!(status.success(), "{status}: {}", error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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

async fn usual_directories() -> Vec<PathBuf> {
    let mut list = Command::new("/bin/sh");
    let listed = list.args(["-c", LIST_DIRECTORIES]).output().await;
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    listed.lines().map(PathBuf::from).collect()
}
