//! Non-blocking output for a process that serves: a bounded queue, and a thread that writes its lines. A stopped terminal or a
//! full pipe to a log collector would otherwise block sending and the shutdown.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum size of the queue. At 500 calls/s, the lines of level debug fill the queue in ten seconds.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
const MAX_QUEUED_TEXTS: usize = 8 * 1024;
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// An output stream that a thread writes. The queue drops and counts lines that exceed its size or can't be written.
#[derive(Debug, Clone)]
pub(crate) struct OutputQueue {
    texts: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Includes the write in progress.
    queued_bytes: AtomicUsize,
    dropped_lines: AtomicU64,
}

impl OutputQueue {
    /// Starts the thread that writes to `sink`. After dropped lines, the thread calls `report_dropped` with their number as
    /// soon as the sink takes lines again and the queue has room for the report.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn start(
        mut sink: impl Write + Send + 'static,
        report_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (texts, queued) = sync_channel::<Vec<u8>>(MAX_QUEUED_TEXTS);
        let state = Arc::<State>::default();
        let writer = Arc::clone(&state);
        let write_all = move || {
            let mut reported = 0;
            for text in queued {
                let written = sink.write_all(&text).and_then(|()| sink.flush());
                if written.is_err() {
                    writer.count_dropped(&text);
                }
                let before = writer.queued_bytes.fetch_sub(text.len(), Ordering::AcqRel);
                let dropped = writer.dropped_lines.load(Ordering::Relaxed);
                if written.is_ok() && dropped > reported && before < MAX_QUEUED_BYTES / 2 {
                    report_dropped(dropped - reported);
                    reported = dropped;
                }
            }
        };
        thread::Builder::new()
            .name("output".into())
            .spawn(write_all)?;
        Ok(Self { texts, state })
    }

    /// Queues a text of whole lines, or drops it if the queue is full.
    pub(crate) fn push(&self, text: &[u8]) {
        let queued_bytes = &self.state.queued_bytes;
        let before = queued_bytes.fetch_add(text.len(), Ordering::AcqRel);
        let has_room = before + text.len() <= MAX_QUEUED_BYTES;
        if !has_room || self.texts.try_send(text.to_vec()).is_err() {
            queued_bytes.fetch_sub(text.len(), Ordering::AcqRel);
            self.state.count_dropped(text);
        }
    }

    /// Queues a line, or drops it if the queue is full.
    pub(crate) fn push_line(&self, line: &str) {
        self.push(format!("{line}\n").as_bytes());
    }

    /// Blocks until the queue is empty, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let begun = Instant::now();
        while self.state.queued_bytes.load(Ordering::Acquire) > 0 && begun.elapsed() < timeout {
            #[expect(
                clippy::disallowed_methods,
                reason = "the caller is not a thread of the runtime"
            )]
            thread::sleep(FLUSH_POLL);
        }
    }

    /// How many lines were dropped since the start.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.state.dropped_lines.load(Ordering::Relaxed)
    }
}

impl State {
    fn count_dropped(&self, text: &[u8]) {
        let lines = text.split_inclusive(|&byte| byte == b'\n').count() as u64;
        self.dropped_lines.fetch_add(lines, Ordering::Relaxed);
    }
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
    use std::io::ErrorKind;
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

    struct Stalled {
        queue: OutputQueue,
        allow: Sender<io::Result<()>>,
        taken: Receiver<Vec<u8>>,
        reported: Receiver<u64>,
    }

    fn stalled() -> Stalled {
        let (allow, allowed) = channel();
        let (took, taken) = channel();
        let (report, reported) = channel();
        let report = move |lines| report.send(lines).expect("the test goes on");
        let queue = OutputQueue::start(Reader { allowed, took }, report).expect("a thread");
        Stalled {
            queue,
            allow,
            taken,
            reported,
        }
    }

    #[test]
    fn a_full_queue_drops_lines_and_reports_them_once_it_has_room() {
        let out = stalled();
        let line = "x".repeat(1023);
        for _ in 0..3 * MAX_QUEUED_BYTES / 1024 {
            out.queue.push_line(&line);
        }
        let kept = MAX_QUEUED_BYTES / 1024;
        assert_eq!(out.queue.dropped_lines(), 2 * kept as u64);
        for _ in 0..kept {
            assert!(out.reported.try_recv().is_err(), "the queue has no room");
            out.allow.send(Ok(())).expect("the writer goes on");
            out.taken.recv_timeout(LIMIT).expect("written");
            if out.queue.state.queued_bytes.load(Ordering::Acquire) < MAX_QUEUED_BYTES / 2 {
                break;
            }
        }
        out.allow.send(Ok(())).expect("the writer goes on");
        assert_eq!(out.reported.recv_timeout(LIMIT), Ok(2 * kept as u64));
    }

    #[test]
    fn a_failed_write_counts_as_dropped_and_later_lines_are_written() {
        let out = stalled();
        out.queue.push(b"one\ntwo\n");
        let full = ErrorKind::StorageFull.into();
        out.allow.send(Err(full)).expect("the writer goes on");
        out.queue.flush(LIMIT);
        assert_eq!(out.queue.dropped_lines(), 2);
        out.queue.push_line("three");
        out.allow.send(Ok(())).expect("the writer goes on");
        assert_eq!(out.taken.recv_timeout(LIMIT).expect("written"), b"three\n");
        assert_eq!(out.reported.recv_timeout(LIMIT), Ok(2));
    }
}
