//! Where this machine keeps PostgreSQL's programs, and who may run them.

use std::{
    cmp::Reverse,
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{Durability, PostgresError};

/// The environment variable that names the directory of PostgreSQL's programs.
const BINDIR_VARIABLE: &str = "WORKER_PG_BINDIR";

/// Where packages put each version beside the others: a directory, and how the names of the versions in it begin.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql"),
    ("/usr/local/opt", "postgresql"),
];

const LOOKED_IN: &str = "on PATH, in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /opt/homebrew/opt/postgresql*/bin, \
                         /usr/local/opt/postgresql*/bin, and where `pg_config --bindir` points";

/// How much room a cluster in memory needs: its WAL, and the databases of tests that run at the same time.
#[cfg(target_os = "linux")]
const MIN_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// A socket's path is limited to about a hundred bytes, of which the cluster's own names take forty.
const LONGEST_PARENT_BYTES: usize = 60;

/// PostgreSQL's programs, known to run.
#[derive(Debug)]
pub(super) struct Installation {
    /// The directory of `initdb` and `postgres`.
    pub(super) bindir: PathBuf,
    /// As the server names itself, `postgres (PostgreSQL) 17.2`.
    pub(super) version: String,
    /// Whom to run it as, where that can't be the present user.
    account: Option<Account>,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Installation {
    /// Finds programs that work. A directory that is named, here or by the environment, is the only one looked at: who
    /// asks for one version must not be given another.
    ///
    /// # Errors
    /// When there are none, or when this is root and there is no other user to run them as.
    pub(super) async fn find(bindir: Option<&Path>) -> Result<Self, PostgresError> {
        let account = account()?;
        let named = bindir
            .map(Path::to_owned)
            .or_else(|| env::var_os(BINDIR_VARIABLE).map(PathBuf::from));
        let (candidates, looked_in) = match named {
            Some(directory) => {
                let looked_in = format!("in {}", directory.display());
                (vec![directory], looked_in)
            }
            None => (usual_directories().await, LOOKED_IN.to_owned()),
        };

        let mut unusable = None;
        for bindir in candidates
            .into_iter()
            .filter(|directory| has_programs(directory))
        {
            match version(&bindir, account).await {
                Ok(version) => {
                    return Ok(Self {
                        bindir,
                        version,
                        account,
                    });
                }
                Err(why) => {
                    unusable.get_or_insert_with(|| {
                        format!("what is in {} does not run: {why}", bindir.display())
                    });
                }
            }
        }
        Err(PostgresError::NotFound {
            looked_in,
            unusable,
        })
    }

    /// A command that runs as the user that PostgreSQL may run as.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command(program, self.account)
    }

    /// Writes a file that only that user can read.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn write_for_server(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        match self.account {
            Some(Account { uid, gid }) => fchown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// A directory in which that user can make, reach and remove the cluster's own. A cluster that need not survive the
    /// machine is made in memory where there is room: a new database then takes a sixth of the time.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn parent_directory(
        &self,
        durability: Durability,
    ) -> Result<PathBuf, PostgresError> {
        let on_disk = [
            env::temp_dir(),
            PathBuf::from("/tmp"),
            PathBuf::from("/var/tmp"),
        ];
        let tried: Vec<PathBuf> = in_memory(durability).into_iter().chain(on_disk).collect();
        tried
            .iter()
            .find(|directory| {
                directory.as_os_str().len() <= LONGEST_PARENT_BYTES
                    && directory.is_absolute()
                    && directory.is_dir()
                    && (self.account.is_none() || is_open_to_all(directory))
            })
            .cloned()
            .ok_or(PostgresError::NoDirectory { tried })
    }
}

/// Linux's file system in memory, if it has room for a cluster. Containers often have 64 MB of it.
#[cfg(target_os = "linux")]
fn in_memory(durability: Durability) -> Option<PathBuf> {
    let directory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(directory).ok()?;
    let has_room = room.f_bavail.saturating_mul(room.f_frsize) >= MIN_MEMORY_BYTES;
    // A user who sets TMPDIR has chosen a place.
    let is_wanted = durability == Durability::Throwaway && env::var_os("TMPDIR").is_none();
    (is_wanted && has_room).then(|| directory.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_durability: Durability) -> Option<PathBuf> {
    None
}

/// The user to run PostgreSQL as, or `None` for the present one.
fn account() -> Result<Option<Account>, PostgresError> {
    // Without unsafe code the owner of a new file is the way to learn who this is.
    let uid = tempfile::tempfile()
        .and_then(|file| file.metadata())
        .map_err(PostgresError::io("making a temporary file"))?
        .uid();
    if uid != 0 {
        return Ok(None);
    }
    let passwd =
        fs::read_to_string("/etc/passwd").map_err(PostgresError::io("reading /etc/passwd"))?;
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| account_named(name, &passwd))
        .map(Some)
        .ok_or(PostgresError::NoAccount)
}

/// The account of that name in the text of `/etc/passwd`, unless it is root's by another name.
fn account_named(name: &str, passwd: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _password, uid, gid, ..] = fields[..] else {
            return None;
        };
        let account = Account {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        };
        (found == name && account.uid != 0).then_some(account)
    })
}

fn command(program: impl AsRef<OsStr>, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    // What a person set for their own clusters (PGDATA, PGOPTIONS…) has nothing to say here.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

fn has_programs(bindir: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|program| bindir.join(program).is_file())
}

/// Runs the server for its version, as the user that is going to run it: what can't be executed is found out here.
async fn version(bindir: &Path, account: Option<Account>) -> io::Result<String> {
    // The present directory may be closed to that user, and PostgreSQL insists on knowing where it is.
    let output = command(bindir.join("postgres"), account)
        .arg("--version")
        .current_dir("/")
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "{}: {}",
            output.status,
            said.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn usual_directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Relative entries would mean another directory for every process.
    let on_path = env::split_paths(&path).filter(|directory| directory.is_absolute());
    let mut directories: Vec<PathBuf> = on_path.collect();
    for (parent, prefix) in VERSIONED {
        directories.extend(versions(Path::new(parent), prefix));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        directories.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    directories
}

/// `parent/prefix*/bin`, the highest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort_by_cached_key(|name| Reverse(version_numbers(name)));
    names
        .into_iter()
        .map(|name| parent.join(name).join("bin"))
        .collect()
}

/// The numbers in a name, so that 10 comes after 9.6.
fn version_numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Whether any user can make files in this directory and get there.
fn is_open_to_all(directory: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    // A link's target may lie below other directories than the link.
    directory.canonicalize().is_ok_and(|directory| {
        mode(&directory) & 0o003 == 0o003
            && directory
                .ancestors()
                .all(|ancestor| mode(ancestor) & 0o001 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number_with_the_highest_first() {
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

    #[test]
    fn an_account_is_found_by_its_whole_name_and_is_never_root() {
        let passwd =
            "root:x:0:0::/:\npostgres2:x:7:7::/:\npostgres:x:101:104::/:\nnobody:x:0:0::/:\n";
        assert_eq!(
            account_named("postgres", passwd),
            Some(Account { uid: 101, gid: 104 })
        );
        assert_eq!(account_named("nobody", passwd), None);
        assert_eq!(
            account_named("nobody", "nobody:*:-2:-2:Unprivileged User:/:\n"),
            None
        );
    }

    #[test]
    fn a_directory_below_a_closed_one_is_not_open_to_all() {
        let closed = tempfile::tempdir().unwrap();
        let below = closed.path().join("below");
        fs::create_dir(&below).unwrap();
        for (directory, mode) in [(&*below, 0o777), (closed.path(), 0o700)] {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert!(!is_open_to_all(&below));
    }
}
