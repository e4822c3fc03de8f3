//! The compiled binary, as a process.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{PATIENCE, comes_true};

/// The most bytes of output that are kept of one process; the oldest lines go first.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// The worker's binary: cargo puts it beside the directory of the test binaries.
///
/// # Panics
/// Where it is not there.
pub fn worker_binary() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let profile = test.ancestors().nth(2).expect("a directory of cargo's");
    let worker = profile.join("worker");
    assert!(
        worker.exists(),
        "{} is missing: run `cargo build` first",
        worker.display()
    );
    worker
}

/// A command to be run, with nothing in its environment of what the worker's own settings are.
#[must_use]
pub struct Worker {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    input: String,
    has_small_log_pipe: bool,
}

impl Worker {
    pub fn new(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            // Where many run at once, each that is looked at by HTTP says where.
            environment: BTreeMap::from([("WORKER_OPS_ADDR".into(), "off".into())]),
            input: String::new(),
            has_small_log_pipe: false,
        }
    }

    /// Another command with the same environment.
    pub fn as_command(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets a variable, in the place of an earlier value.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// What the process reads on its standard input.
    pub fn input(mut self, text: &str) -> Self {
        text.clone_into(&mut self.input);
        self
    }

    /// Makes its log fill up with some twenty lines while nobody reads it, where the system is Linux.
    pub fn small_log_pipe(mut self) -> Self {
        self.has_small_log_pipe = true;
        self
    }

    /// Starts it. It is killed when what is returned goes out of scope.
    pub fn start(self) -> Running {
        let mut command = Command::new(worker_binary());
        for (name, _) in std::env::vars() {
            let is_setting = [
                "AGORA_",
                "WORKER_",
                "DATABASE_URL",
                "PG",
                "SIMULATOR_",
                "OTEL_",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix));
            // A proxy of the machine would get the calls of a test.
            let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
            // Where the programs of PostgreSQL are is a matter of the machine.
            if (is_setting || is_proxy) && name != "WORKER_PG_BINDIR" {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.arguments)
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
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
        let readers = vec![
            stdout.read(child.stdout.take().expect("piped")),
            stderr.read(log),
        ];
        let mut stdin = child.stdin.take().expect("piped");
        let input = self.input;
        tokio::spawn(async move {
            // A process that has found a mistake may end before it has read everything.
            stdin.write_all(input.as_bytes()).await.ok();
        });
        Running {
            name: self.arguments.join(" "),
            pid: child.id().expect("it was just started"),
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// Runs it to its end.
    pub async fn finish(self) -> Finished {
        let mut running = self.start();
        let code = running.wait_exit().await;
        Finished {
            code,
            stdout: running.stdout.text(),
            stderr: running.stderr.text(),
        }
    }
}

/// What became of a command.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that has been started.
pub struct Running {
    name: String,
    pid: u32,
    child: Child,
    pub stdout: Output,
    pub stderr: Output,
    readers: Vec<JoinHandle<()>>,
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

    /// Ends it in order, so that nothing of it is still on its way to the database.
    pub async fn stop(&mut self) {
        self.signal("TERM").await;
        assert_eq!(self.wait_exit().await, Some(0), "`{}` failed", self.name);
    }

    /// Ends it without a chance to do anything, and returns when it is gone. A statement that it has sent may still
    /// be carried out by the database.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Its command line, as every user of the host can read it.
    pub fn command_line(&self) -> String {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).expect("it is running");
        String::from_utf8_lossy(&line).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Stops or goes on reading its standard error: in between, the pipe fills up.
    pub fn stall_log(&self, is_stalled: bool) {
        self.stderr.stall(is_stalled);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Waits for its end and that of its output; the exit code, or none where a signal ended it.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("`{}` does not end", self.name))
            .expect("its state");
        self.stderr.stall(false);
        for reader in self.readers.drain(..) {
            tokio::time::timeout(PATIENCE, reader)
                .await
                .expect("nothing else holds its output open")
                .expect("read");
        }
        status.code()
    }

    /// Waits until it has logged an event, such as `worker_started`.
    pub async fn until_logged(&self, event: &str) {
        let logged = comes_true(PATIENCE, async || {
            !log_lines(&self.stderr.text(), event).is_empty()
        })
        .await;
        assert!(logged, "`{}` has not logged {event}", self.name);
    }

    /// How many lines of an event it has logged.
    pub fn logged(&self, event: &str) -> usize {
        log_lines(&self.stderr.whole_text(), event).len()
    }

    /// The first line that it has logged of an event.
    ///
    /// # Panics
    /// Where there is none.
    pub fn log_line(&self, event: &str) -> String {
        let log = self.stderr.whole_text();
        let lines = log_lines(&log, event);
        let line = lines.first().unwrap_or_else(|| panic!("no {event}: {log}"));
        (*line).to_owned()
    }

    /// Waits until it has printed `text`.
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

/// The lines of a log, as text or as JSON, that have an event as their field `event`. Other words of a log may change.
pub fn log_lines<'log>(log: &'log str, event: &str) -> Vec<&'log str> {
    let as_text = format!("event=\"{event}\"");
    let as_json = format!("\"event\":\"{event}\"");
    log.lines()
        .filter(|line| line.contains(&as_text) || line.contains(&as_json))
        .collect()
}

/// What a process has written, as far as it is kept.
#[derive(Clone, Default)]
pub struct Output {
    kept: Arc<Mutex<Kept>>,
    is_stalled: watch::Sender<bool>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    dropped_lines: usize,
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
                output.push(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        })
    }

    fn stall(&self, is_stalled: bool) {
        self.is_stalled.send_replace(is_stalled);
    }

    fn push(&self, line: String) {
        let mut kept = self.kept();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > MAX_KEPT_BYTES
            && let Some(oldest) = kept.lines.pop_front()
        {
            kept.bytes -= oldest.len();
            kept.dropped_lines += 1;
        }
    }

    pub fn text(&self) -> String {
        self.kept().lines.iter().map(String::as_str).collect()
    }

    pub fn whole_text(&self) -> String {
        assert_eq!(self.kept().dropped_lines, 0, "there was too much output");
        self.text()
    }

    /// As much as a person wants to see of it.
    fn tail(&self) -> String {
        let kept = self.kept();
        let skipped = kept.lines.len().saturating_sub(60);
        kept.lines
            .iter()
            .skip(skipped)
            .map(String::as_str)
            .collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
