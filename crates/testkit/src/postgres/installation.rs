//! PostgreSQL's programs on this machine, and the user that may run them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::command_without_settings;

/// The variable that names the directory of PostgreSQL's programs.
const BINDIR_VARIABLE: &str = "WORKER_PG_BINDIR";

/// Prints the directory and the version of the first server that runs, in the named directory or in the usual ones. Of a
/// package's versions, the highest is first.
const FIND_SERVER: &str = r#"{
    if [ "$1" ]; then
        printf '%s\n' "$1"
    else
        printf '%s\n' "$PATH" | tr : '\n' | grep ^/
        ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
            /usr/local/opt/postgresql*/bin 2>/dev/null | sort -rV
        pg_config --bindir 2>/dev/null
    fi
} | while read -r bindir; do
    if [ ! -f "$bindir/initdb" ]; then
        echo "no $bindir/initdb" >&2
        continue
    fi
    version=$("$bindir/postgres" --version)
    if [ "$version" ]; then
        printf '%s\n%s\n' "$bindir" "$version"
        break
    fi
done"#;

/// A cluster in memory holds its WAL and the databases of simultaneous tests.
const MIN_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Working programs of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The directory of `initdb` and `postgres`.
    pub(super) bindir: PathBuf,
    /// For example `postgres (PostgreSQL) 17.2`.
    pub(super) version: String,
    /// User and group to run the programs as, because PostgreSQL refuses to run as root.
    account: Option<(u32, u32)>,
}

impl Installation {
    /// Finds the programs in `bindir`, or in the directory that the environment names, or in the usual directories. Runs the
    /// server as its later user, which shows whether that user can execute it.
    pub(super) async fn find(bindir: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut installation = Self {
            bindir: PathBuf::new(),
            version: String::new(),
            account: account()?,
        };
        let named = bindir.or_else(|| env::var_os(BINDIR_VARIABLE).map(PathBuf::from));
        let mut find = installation.command("/bin/sh");
        find.args(["-c", FIND_SERVER, "find-server"]).args(&named);
        // The server fails to start in a directory that its user can't read.
        let output = find.current_dir("/").output().await?;
        let found = String::from_utf8_lossy(&output.stdout);
        if let Some((bindir, version)) = found.trim_end().split_once('\n') {
            installation.bindir = bindir.into();
            installation.version = version.into();
            return Ok(installation);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "found no PostgreSQL server. Install it (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install \
             postgresql-server`; macOS: `brew install postgresql`) or name the directory of its programs in \
             {BINDIR_VARIABLE}. The search printed:\n{}",
            errors.trim_end()
        )
    }

    /// A command that runs as the user of the server.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // PGDATA, PGOPTIONS and the like are for the user's own clusters.
        let mut command = command_without_settings(program);
        command.env("LC_ALL", "C");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Writes a file that only the server can read. PostgreSQL refuses a private key that other users can read.
    pub fn write_for_server(&self, path: &Path, text: &str) -> io::Result<()> {
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
