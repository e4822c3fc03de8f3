//! The compiled worker as a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use testkit::command_without_settings;

use super::{API_KEY, API_SECRET, APP_ID, PATIENCE, assert_contains, comes_true};

/// The worker's binary. Cargo puts it into the parent of the test binaries' directory.
pub fn worker_binary() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let profile = test.ancestors().nth(2).expect("a directory of cargo");
    let worker = profile.join("worker");
    let path = worker.display();
    assert!(
        worker.exists(),
        "{path} is missing: run `cargo build` first"
    );
    worker
}

/// A command of the worker. Its environment has no settings but the given ones.
#[must_use]
pub struct Worker {
    binary: Option<PathBuf>,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    has_small_log_pipe: bool,
    stdout: Option<Stdio>,
    files: Vec<NamedTempFile>,
}

impl Worker {
    pub fn new(arguments: &[&str]) -> Self {
        Self {
            binary: None,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            // Simultaneous workers can't share the usual address of the ops server.
            environment: BTreeMap::from([("WORKER_OPS_ADDR".into(), "off".into())]),
            has_small_log_pipe: false,
            stdout: None,
            files: Vec::new(),
        }
    }

    /// A command on a database.
    pub fn on(url: &str, arguments: &[&str]) -> Self {
        Self::new(arguments).env("DATABASE_URL", url)
    }

    /// Configures the usual app.
    pub fn with_app(self) -> Self {
        self.env("AGORA_APP_ID", APP_ID)
            .env("AGORA_API_KEY", API_KEY)
            .env("AGORA_API_SECRET", API_SECRET)
    }

    pub fn as_command(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// Runs another binary than the compiled one, for example that of an older release.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a variable to the path of a new file with this text.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let path = file.path().display().to_string();
        self.files.push(file);
        self.env(name, &path)
    }

    /// Leases of two seconds, so that a test can wait for their end.
    pub fn short_leases(self) -> Self {
        self.env("WORKER_REQUEST_TIMEOUT", "1s")
            .env("WORKER_LEASE", "2s")
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Shrinks the pipe of the log on Linux, so that about twenty unread lines fill it.
    pub fn small_log_pipe(mut self) -> Self {
        self.has_small_log_pipe = true;
        self
    }

    /// Redirects the standard output. [`Running::stdout`] then stays empty.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Starts the process. Dropping the returned value kills the process.
    pub fn start(self) -> Running {
        let binary = self.binary.unwrap_or_else(worker_binary);
        let mut child = command_without_settings(binary)
            .args(&self.arguments)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(self.stdout.unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let log = child.stderr.take().expect("piped");
        #[cfg(target_os = "linux")]
        if self.has_small_log_pipe {
            rustix::pipe::fcntl_setpipe_size(&log, 4096).expect("a small pipe");
        }
        let (stdout, stderr) = (Output::default(), Output::default());
        let mut readers = vec![stderr.read(log)];
        readers.extend(child.stdout.take().map(|pipe| stdout.read(pipe)));
        Running {
            name: self.arguments.join(" "),
            pid: child.id().expect("the process was just started"),
            child,
            stdout,
            stderr,
            readers,
            _files: self.files,
        }
    }

    pub async fn finish(self) -> Finished {
        let mut running = self.start();
        Finished {
            code: running.wait_exit().await,
            command: running.name.clone(),
            stdout: running.stdout.text(),
            stderr: running.stderr.text(),
        }
    }

    /// Asserts that the command succeeds, and returns its output.
    pub async fn succeeds(self) -> String {
        let finished = self.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    }

    /// Asserts that the command ends with this code, and that its errors have each phrase.
    pub async fn fails(self, code: i32, phrases: &[&str]) -> Finished {
        let finished = self.finish().await;
        assert_eq!(finished.code, Some(code), "{finished:?}");
        assert_contains(&finished.stderr, phrases);
        finished
    }
}

#[derive(Debug)]
pub struct Finished {
    pub command: String,
    /// `None` if a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub struct Running {
    name: String,
    pub pid: u32,
    child: Child,
    pub stdout: Output,
    pub stderr: Output,
    readers: Vec<JoinHandle<()>>,
    _files: Vec<NamedTempFile>,
}

impl Running {
    /// Sends a signal, such as `TERM`.
    pub async fn signal(&mut self, signal: &str) {
        assert!(self.is_running(), "no process to send {signal} to");
        let sent = Command::new("kill")
            .args(["-s", signal, &self.pid.to_string()])
            .status()
            .await
            .expect("kill runs");
        assert!(sent.success(), "{signal} could not be sent");
    }

    /// Stops the worker with SIGTERM, so that it leaves no statement behind in the database.
    pub async fn stop(&mut self) {
        self.signal("TERM").await;
        assert_eq!(self.wait_exit().await, Some(0), "`{}` failed", self.name);
    }

    /// Kills the process. The database may still execute its last statement.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// The command line that other users of the host can read.
    pub fn command_line(&self) -> String {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).expect("the process runs");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Stops or continues to read the log. Without a reader, its pipe fills up.
    pub fn stall_log(&self, is_stalled: bool) {
        self.stderr.is_stalled.send_replace(is_stalled);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a state").is_none()
    }

    /// Waits for the end of the process and of its output. Returns no exit code if a signal ended the process.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("`{}` does not end", self.name))
            .expect("an exit status");
        self.stall_log(false);
        for reader in self.readers.drain(..) {
            tokio::time::timeout(PATIENCE, reader)
                .await
                .expect("no other process holds the output open")
                .expect("read");
        }
        status.code()
    }

    /// Waits until the process has logged an event, such as `worker_started`.
    pub async fn until_logged(&self, event: &str) {
        let logged = comes_true(PATIENCE, async || self.logged(event) > 0).await;
        assert!(logged, "`{}` has not logged {event}", self.name);
    }

    pub fn logged(&self, event: &str) -> usize {
        log_lines(&self.stderr.text(), event).len()
    }

    pub fn log_line(&self, event: &str) -> String {
        let log = self.stderr.text();
        let line = log_lines(&log, event).first().copied();
        line.unwrap_or_else(|| panic!("no {event}: {log}"))
            .to_owned()
    }

    pub async fn until_printed(&self, text: &str) {
        let printed = comes_true(PATIENCE, async || self.stdout.text().contains(text)).await;
        assert!(printed, "`{}` has not printed {text:?}", self.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, pid) = (&self.name, self.pid);
            println!("--- stdout of `{name}` ({pid})\n{}", self.stdout.tail());
            println!("--- stderr of `{name}` ({pid})\n{}---", self.stderr.tail());
        }
    }
}

/// The lines of an event in a log of text or JSON. Tests look for events alone, because prose may change.
pub fn log_lines<'log>(log: &'log str, event: &str) -> Vec<&'log str> {
    let as_text = format!("event=\"{event}\"");
    let as_json = format!("\"event\":\"{event}\"");
    log.lines()
        .filter(|line| line.contains(&as_text) || line.contains(&as_json))
        .collect()
}

#[derive(Clone, Default)]
pub struct Output {
    text: Arc<Mutex<String>>,
    is_stalled: watch::Sender<bool>,
}

impl Output {
    fn read(&self, stream: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let output = self.clone();
        let mut is_stalled = self.is_stalled.subscribe();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while is_stalled.wait_for(|is_stalled| !is_stalled).await.is_ok()
                && matches!(stream.read_until(b'\n', &mut line).await, Ok(1..))
            {
                *output.text.lock() += &String::from_utf8_lossy(&line);
                line.clear();
            }
        })
    }

    pub fn text(&self) -> String {
        self.text.lock().clone()
    }

    fn tail(&self) -> String {
        let text = self.text();
        let skipped = text.lines().count().saturating_sub(60);
        text.split_inclusive('\n').skip(skipped).collect()
    }
}
