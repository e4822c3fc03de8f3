//! Non-blocking output for a process that serves: a bounded queue, and a thread that writes its lines. A stopped terminal or a
//! full pipe to a log collector would otherwise block sending and the shutdown.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Maximum size of the queue. The write in progress may hold as much again. At 500 calls/s, the lines of level debug fill the
/// queue in ten seconds.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
/// The pause before the next write to a full pipe that another process made non-blocking.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

/// An output stream that a thread writes. The queue drops and counts lines that exceed its size or can't be written.
#[derive(Debug, Clone)]
pub(crate) struct OutputQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The writer waits for this.
    has_bytes: Condvar,
    /// A flush waits for this.
    is_written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    is_writing: bool,
    dropped_lines: u64,
    /// Dropped lines that the log has not mentioned yet.
    unreported_lines: u64,
    /// Why the last write failed, unless a later one succeeded.
    error: Option<ErrorKind>,
}

impl OutputQueue {
    /// Starts the thread that writes to `sink`. After dropped lines, the thread calls `report_dropped` with their number as
    /// soon as the sink takes lines again.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn start(
        sink: impl Write + Send + 'static,
        report_dropped: fn(u64),
    ) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let writer = queue.clone();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || writer.write_forever(sink, report_dropped))?;
        Ok(queue)
    }

    /// Queues a text of whole lines, or drops it if the queue is full.
    pub(crate) fn push(&self, text: &[u8]) {
        let mut state = self.0.state.lock();
        if state.bytes.len() + text.len() > MAX_QUEUED_BYTES {
            state.dropped(text);
        } else {
            state.bytes.extend_from_slice(text);
            self.0.has_bytes.notify_one();
        }
    }

    /// Queues a line, or drops it if the queue is full.
    pub(crate) fn push_line(&self, line: &str) {
        self.push(format!("{line}\n").as_bytes());
    }

    /// Waits until the queue is empty, but no longer than `timeout`. Returns whether the queue is empty.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || !state.bytes.is_empty();
        let mut state = self.0.state.lock();
        let is_written = &self.0.is_written;
        let waited = is_written.wait_while_for(&mut state, is_busy, timeout);
        !waited.timed_out()
    }

    /// How many lines were dropped since the start.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.0.state.lock().dropped_lines
    }

    /// The error of the last write; none after a success or on a closed pipe.
    #[cfg(feature = "dev")]
    pub(crate) fn error(&self) -> Option<io::Error> {
        let error = self.0.state.lock().error?;
        (error != ErrorKind::BrokenPipe).then(|| error.into())
    }

    fn write_forever(&self, mut sink: impl Write, report_dropped: fn(u64)) {
        loop {
            let bytes = self.take();
            let written = write(&mut sink, &bytes);
            if let Some(unreported) = self.written(&bytes, written) {
                report_dropped(unreported);
            }
        }
    }

    /// Waits for something to write.
    fn take(&self) -> Vec<u8> {
        let is_idle = |state: &mut State| state.bytes.is_empty();
        let mut state = self.0.state.lock();
        self.0.has_bytes.wait_while(&mut state, is_idle);
        state.is_writing = true;
        std::mem::take(&mut state.bytes)
    }

    /// Takes in the result of a write. Returns the number of dropped lines to report. None while the queue is more than half
    /// full, because the report itself might be dropped.
    fn written(&self, bytes: &[u8], written: Result<(), (usize, ErrorKind)>) -> Option<u64> {
        let mut state = self.0.state.lock();
        state.is_writing = false;
        self.0.is_written.notify_all();
        match written {
            Ok(()) => {
                state.error = None;
                let has_room = state.bytes.len() < MAX_QUEUED_BYTES / 2;
                (has_room && state.unreported_lines > 0)
                    .then(|| std::mem::take(&mut state.unreported_lines))
            }
            Err((count, error)) => {
                state.dropped(bytes.get(count..).unwrap_or_default());
                state.error = Some(error);
                None
            }
        }
    }
}

impl State {
    fn dropped(&mut self, text: &[u8]) {
        let lines = text.split_inclusive(|&byte| byte == b'\n').count() as u64;
        self.dropped_lines += lines;
        self.unreported_lines += lines;
    }
}

/// Writes everything. An error has the number of bytes that were written before it.
fn write(sink: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, ErrorKind)> {
    let mut count = 0;
    while let Some(rest) = bytes.get(count..)
        && !rest.is_empty()
    {
        match sink.write(rest) {
            Ok(0) => return Err((count, ErrorKind::WriteZero)),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this thread is not one of the runtime"
                )]
                thread::sleep(FULL_PIPE_PAUSE);
            }
            Err(error) => return Err((count, error.kind())),
        }
    }
    sink.flush().map_err(|error| (0, error.kind()))
}

/// The log's lines: each event is one write.
impl Write for OutputQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Each write waits for a result from the test.
    struct Reader {
        allowed: Receiver<io::Result<()>>,
        took: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().expect("the test goes on")?;
            self.took.send(bytes.to_vec()).expect("the test goes on");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (OutputQueue, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (allow, allowed) = channel();
        let (took, taken) = channel();
        let queue = OutputQueue::start(Reader { allowed, took }, |_| ()).expect("a thread");
        (queue, allow, taken)
    }

    #[test]
    fn a_full_queue_drops_and_counts_lines() {
        let (queue, allow, taken) = queue();
        let line = "x".repeat(1023);
        for _ in 0..3 * MAX_QUEUED_BYTES / 1024 {
            queue.push_line(&line);
        }
        let dropped = usize::try_from(queue.dropped_lines()).expect("few");
        // A write may have taken some of them before the queue was full.
        assert!((MAX_QUEUED_BYTES / 1024..=2 * MAX_QUEUED_BYTES / 1024).contains(&dropped));
        assert!(
            !queue.flush(Duration::from_millis(10)),
            "the writer is blocked"
        );

        let mut bytes = 0;
        while bytes < 3 * MAX_QUEUED_BYTES - dropped * 1024 {
            allow.send(Ok(())).expect("the writer goes on");
            bytes += taken.recv_timeout(LIMIT).expect("written").len();
        }
        assert!(queue.flush(LIMIT), "everything is written");
        queue.push_line("more");
        allow.send(Ok(())).expect("the writer goes on");
        assert_eq!(taken.recv_timeout(LIMIT).expect("written"), b"more\n");
        assert_eq!(usize::try_from(queue.dropped_lines()), Ok(dropped));
    }

    #[test]
    fn a_failed_write_counts_as_dropped_and_later_lines_are_written() {
        let (queue, allow, taken) = queue();
        queue.push(b"one\ntwo\n");
        allow
            .send(Err(ErrorKind::StorageFull.into()))
            .expect("the writer goes on");
        assert!(queue.flush(LIMIT), "the lines are dropped");
        assert_eq!(queue.dropped_lines(), 2);
        queue.push_line("three");
        allow.send(Ok(())).expect("the writer goes on");
        assert_eq!(taken.recv_timeout(LIMIT).expect("written"), b"three\n");
    }

    #[test]
    fn dropped_lines_are_reported_once_the_queue_has_room() {
        let queue = OutputQueue(Arc::default());
        queue.0.state.lock().unreported_lines = 7;
        queue.0.state.lock().bytes = vec![b'\n'; MAX_QUEUED_BYTES / 2];
        assert_eq!(queue.written(b"", Ok(())), None, "the queue is half full");
        queue.0.state.lock().bytes.clear();
        assert_eq!(queue.written(b"", Ok(())), Some(7));
        assert_eq!(queue.written(b"", Ok(())), None, "reported once");
    }
}
