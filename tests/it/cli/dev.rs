//! `worker dev`, alone and with a command

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use harness::{PATIENCE, Postgres, Running, Worker, ask, assert_contains, until};

/// A directory for everything temporary, which the account that Postgres runs as can enter.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        let mut directory = tempfile::Builder::new();
        let directory = directory.prefix("dev").tempdir_in("/tmp");
        let directory = directory.expect("a directory");
        let for_all = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(directory.path(), for_all).expect("open to all");
        Self(directory)
    }

    fn dev(&self, arguments: &[&str]) -> Worker {
        let path = self.0.path().to_str().expect("a path");
        Worker::new(&[&["dev"], arguments].concat()).env("TMPDIR", path)
    }

    /// Runs a script of the shell as the command.
    fn script(&self, script: &str) -> Worker {
        self.dev(&["--", "sh", "-c", script])
    }

    fn is_empty(&self) -> bool {
        let mut entries = std::fs::read_dir(self.0.path()).expect("listed");
        entries.next().is_none()
    }

    /// After a kill, the supervisor ends the servers within seconds.
    async fn until_empty(&self) {
        let is_empty = async || self.is_empty();
        until("all files are deleted", PATIENCE, is_empty).await;
    }
}

/// The database of a playground.
struct Database {
    url: String,
    connection: PgConnection,
    /// The server's process ID, as the server knows it.
    server_pid: String,
}

impl Database {
    /// Connects to the URL that is printed for psql.
    async fn of(dev: &Running) -> Self {
        dev.until_printed("psql '").await;
        let printed = dev.stdout.text();
        let (_, rest) = printed.split_once("psql '").expect("printed");
        let url = rest.split('\'').next().expect("a URL").to_owned();
        let mut connection = PgConnection::connect(&url).await.expect("connected");
        let pid = "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)";
        Self {
            server_pid: ask(&mut connection, pid).await,
            connection,
            url,
        }
    }

    /// Inserts a message, and waits until the worker has sent it.
    async fn deliver(&mut self) {
        let insert = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')
                      returning id";
        let id: i64 = ask(&mut self.connection, insert).await;
        let is_sent =
            format!("select status = 'message_sent' from signaling.outbox where id = {id}");
        until("the message is sent", PATIENCE, async || {
            ask(&mut self.connection, &is_sent).await
        })
        .await;
    }

    async fn assert_has_ended(&self) {
        let process = format!("/proc/{}", self.server_pid);
        assert!(!Path::new(&process).exists(), "the server runs on");
        let connected = PgConnection::connect(&self.url).await;
        assert!(connected.is_err(), "the server answers");
    }
}

#[tokio::test]
async fn the_demonstration_sends_its_messages_and_cleans_up() {
    let directory = Directory::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo.sh");
    let demo = directory.dev(&["--", "sh", script, "60"]);
    let finished = demo.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let phrases = [
        "the API received 63 calls",
        "the limit is 500",
        "accepted 0 messages more than once",
    ];
    assert_contains(&finished.stderr, &phrases);
    let phrases = [
        "60 of 60 final",
        "message_sent",
        "message_delivered",
        "message_offline",
        "Every message ended as it should.",
    ];
    assert_contains(&finished.stdout, &phrases);
    assert!(directory.is_empty());
}

#[tokio::test]
async fn a_playground_runs_until_it_is_interrupted_and_cleans_up() {
    let directory = Directory::new();
    let mut dev = directory.dev(&[]).start();
    let mut database = Database::of(&dev).await;
    database.deliver().await;
    dev.signal("INT").await;
    assert_eq!(dev.wait_exit().await, Some(0), "{}", dev.stderr.text());
    directory.until_empty().await;
    database.assert_has_ended().await;
}

#[tokio::test]
async fn a_worker_that_has_failed_is_an_error_at_the_end_of_a_playground() {
    let directory = Directory::new();
    let mut dev = directory.dev(&[]).start();
    let mut database = Database::of(&dev).await;
    let lose = "drop table signaling.attempt cascade";
    harness::execute(&mut database.connection, lose).await;
    let has_stopped = async || dev.stderr.text().contains("schema_unusable");
    until("the worker stops", 3 * PATIENCE, has_stopped).await;
    dev.signal("INT").await;
    assert_eq!(dev.wait_exit().await, Some(1), "{}", dev.stderr.text());
    let phrases = ["error: the worker failed", "lacks table signaling.attempt"];
    assert_contains(&dev.stderr.text(), &phrases);
}

#[tokio::test]
async fn a_second_signal_ends_a_playground_at_once() {
    let directory = Directory::new();
    let mut dev = directory.dev(&[]).start();
    let mut database = Database::of(&dev).await;
    database.deliver().await;
    // A server that is stopped by a signal never ends.
    let signal_server = async |signal: &str| {
        let mut kill = Command::new("kill");
        let kill = kill.args([signal, &database.server_pid]).status().await;
        assert!(kill.expect("kill runs").success());
    };
    signal_server("-STOP").await;
    dev.signal("INT").await;
    // `worker dev` prints the summary of the calls before it stops the services.
    let is_stopping = async || dev.stderr.text().contains("the API received");
    until("the services are stopped", PATIENCE, is_stopping).await;
    assert!(dev.is_running());
    dev.signal("INT").await;
    assert_eq!(dev.wait_exit().await, Some(1), "{}", dev.stderr.text());
    assert_contains(
        &dev.stderr.text(),
        &["a second signal interrupted the shutdown"],
    );
    signal_server("-CONT").await;
    directory.until_empty().await;
}

/// The terminal sends SIGINT to the command itself. If `worker dev` forwarded it, the command would get two.
#[tokio::test]
async fn a_command_gets_ctrl_c_once_although_standard_input_is_no_terminal() {
    /// Two signals that arrive together count as one, so a single key could hide a second signal.
    const PRESSES: usize = 4;
    let directory = Directory::new();
    let script =
        // A signal ends `wait` at once. Without the pause, a second signal would often count as one with the first.
        "trap 'sleep 0.2; echo interrupted' INT; trap 'exit 9' TERM; echo ready \\$PPID; while :; do sleep 1 & wait; done";
    let worker = harness::worker_binary();
    // The keys send SIGINT to this shell, too. With a trap, it goes on.
    let command = format!(
        "trap : INT; {} dev -- sh -c \"{script}\" </dev/null; echo exit code $?",
        worker.display()
    );
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", &command, "/dev/null"])
        .env("TMPDIR", directory.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script runs");
    let mut keys = terminal.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(terminal.stdout.take().expect("a pipe")).lines();
    let (mut printed, mut dev_pid) = (String::new(), String::new());
    let (mut presses, mut interruptions) = (0, 0);
    while let Some(line) = lines.next_line().await.expect("text") {
        printed += &line;
        if let Some(pid) = line.trim().strip_prefix("ready ") {
            pid.clone_into(&mut dev_pid);
        } else if line.contains("interrupted") {
            interruptions += 1;
        } else {
            continue;
        }
        if presses < PRESSES {
            presses += 1;
            keys.write_all(b"\x03").await.expect("pressed");
        } else if interruptions == PRESSES {
            // `worker dev` forwards SIGTERM, after each SIGINT that it would forward.
            let mut kill = Command::new("kill");
            let kill = kill.args(["-TERM", &dev_pid]).status().await;
            assert!(kill.expect("kill runs").success(), "{printed}");
        }
    }
    terminal.wait().await.expect("it ends");
    assert!(printed.ends_with("exit code 9"), "{printed}");
    assert_eq!(interruptions, PRESSES, "{printed}");
}

#[tokio::test]
async fn a_command_finds_the_servers_psql_without_one_in_its_path() {
    // The programs that `worker dev` and its supervisor run.
    const PROGRAMS: [&str; 8] = ["awk", "id", "ipcrm", "mktemp", "rm", "sh", "sleep", "tail"];
    let directory = Directory::new();
    let path = tempfile::tempdir().expect("a directory");
    let folders = std::env::var_os("PATH").expect("a PATH");
    for name in PROGRAMS {
        let mut programs = std::env::split_paths(&folders).map(|folder| folder.join(name));
        let program = programs.find(|program| program.is_file());
        let program = program.unwrap_or_else(|| panic!("there is no {name}"));
        std::os::unix::fs::symlink(program, path.path().join(name)).expect("linked");
    }
    let cluster = &Postgres::shared().await.cluster;
    let bindir = cluster.program("initdb");
    let bindir = bindir.parent().and_then(Path::to_str).expect("a folder");
    let psql = directory
        .script("psql -qAtXc 'select 17'")
        .env("PATH", path.path().to_str().expect("a path"))
        .env("WORKER_PG_BINDIR", bindir);
    assert_eq!(psql.succeeds().await, "17\n");
}

#[tokio::test]
async fn a_killed_demonstration_leaves_nothing_behind() {
    let directory = Directory::new();
    let mut dev = directory.dev(&[]).start();
    let database = Database::of(&dev).await;
    dev.kill().await;
    directory.until_empty().await;
    database.assert_has_ended().await;
}

#[tokio::test]
async fn the_exit_code_is_the_commands_and_its_output_stays_clean() {
    for (script, code) in [
        ("echo out; exit 7", 7),
        ("echo out", 0),
        ("echo out; kill -KILL $$", 137),
    ] {
        let directory = Directory::new();
        let finished = directory.script(script).finish().await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert_eq!(finished.stdout, "out\n");
        assert!(!finished.stderr.contains("INFO"), "{finished:?}");
        assert!(directory.is_empty(), "{script}");
    }
}

/// A script that inserts a message, waits until it is final, and prints its status and error.
const DELIVER: &str = r#"
    insert="insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello') returning id"
    id=$(psql -qAtX "$DATABASE_URL" -c "$insert")
    ended="select status, http_status from signaling.outbox where id = $id and finished_at is not null"
    until psql -qAtX -c "$ended" | grep .; do sleep 0.1; done
    echo "$SIGNALING_API_URL""#;

#[tokio::test]
async fn a_command_sees_the_database_and_the_api_with_the_faults_on_request() {
    let with_faults = ["--fault", "400:destination=bob"];
    for (options, expected) in [(&[][..], "message_sent|200"), (&with_faults, "failed|400")] {
        let directory = Directory::new();
        let command = ["--", "sh", "-c", DELIVER];
        // The caller's own database is not the command's.
        let dev = directory
            .dev(&[options, &command].concat())
            .env("PGPORT", "1");
        let printed = dev.succeeds().await;
        let expected = format!("{expected}\nhttp://127.0.0.1:");
        assert!(printed.starts_with(&expected), "{printed}");
        assert!(directory.is_empty(), "{options:?}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command_and_nothing_is_left() {
    for (signal, code) in [("INT", 3), ("TERM", 4)] {
        let directory = Directory::new();
        let script = "trap 'exit 3' INT; trap 'exit 4' TERM; echo $$; while :; do sleep 0.1; done";
        let mut dev = directory.script(script).start();
        dev.until_printed("\n").await;
        let command = format!("/proc/{}", dev.stdout.text().trim());
        assert!(Path::new(&command).exists(), "{command}");
        dev.signal(signal).await;
        assert_eq!(dev.wait_exit().await, Some(code));
        assert!(!Path::new(&command).exists(), "{command} is left");
        assert!(directory.is_empty(), "{signal}");
    }
}

#[tokio::test]
async fn a_signal_before_the_command_starts_ends_worker_dev() {
    let directory = Directory::new();
    let mut dev = directory.script("echo started").start();
    let begins = async || !directory.is_empty();
    until("the cluster has a directory", PATIENCE, begins).await;
    dev.signal("TERM").await;
    assert_eq!(dev.wait_exit().await, Some(143));
    assert_eq!(dev.stdout.text(), "");
    directory.until_empty().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_an_error_with_advice() {
    let directory = Directory::new();
    let phrases = [
        "`no-such-program` can't be started",
        "-> install the program",
    ];
    let dev = directory.dev(&["--", "no-such-program"]);
    dev.fails(127, &phrases).await;
    assert!(directory.is_empty());
}
