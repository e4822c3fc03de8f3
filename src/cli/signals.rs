//! Handles signals of a process that serves. A signal without a handler would end the process at once and lose the outcomes of
//! calls in flight.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Shut down gracefully. The second such signal ends the process at once.
    End,
    /// Shut down gracefully, however often the signal comes. A closing terminal and systemd with `SendSIGHUP` send it beside
    /// another signal, which is no request to hurry.
    EndInOrder,
    Ignored,
}

/// A file has reached the size limit (`ulimit -f`). With a handler, the write fails and the process goes on.
const SIGXFSZ: i32 = 25;

fn requests() -> [(&'static str, SignalKind, Request); 8] {
    [
        ("SIGTERM", SignalKind::terminate(), Request::End),
        ("SIGINT", SignalKind::interrupt(), Request::End),
        ("SIGQUIT", SignalKind::quit(), Request::End),
        ("SIGHUP", SignalKind::hangup(), Request::EndInOrder),
        ("SIGALRM", SignalKind::alarm(), Request::EndInOrder),
        ("SIGUSR1", SignalKind::user_defined1(), Request::Ignored),
        ("SIGUSR2", SignalKind::user_defined2(), Request::Ignored),
        ("SIGXFSZ", SignalKind::from_raw(SIGXFSZ), Request::Ignored),
    ]
}

/// Cancels `shutdown` at the first signal that asks for a shutdown. Returns at the second [`Request::End`].
pub(super) fn signals(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let ignored_signals = ignored_signals(&read_status());
    let mut streams: Vec<(Signal, &str, Request)> = Vec::new();
    for (name, kind, request) in requests() {
        // `nohup` ignores the signal for the process that it starts.
        if name == "SIGHUP" && is_ignored(ignored_signals, kind) {
            continue;
        }
        let stream = signal(kind).with_context(|| format!("{name} can't be handled"))?;
        streams.push((stream, name, request));
    }
    Ok(async move {
        let mut ends = 0;
        while ends < 2 {
            let (name, request) = next_signal(&mut streams).await;
            match request {
                Request::Ignored => tracing::info!(
                    event = "signal_ignored",
                    signal = name,
                    "the worker ignores this signal"
                ),
                Request::End | Request::EndInOrder => {
                    ends += usize::from(request == Request::End);
                    if !shutdown.is_cancelled() {
                        tracing::info!(
                            event = "shutdown_started",
                            signal = name,
                            "shutting down: the worker claims nothing more and finishes calls in flight; a second signal ends it at once"
                        );
                    }
                    shutdown.cancel();
                }
            }
        }
    })
}

async fn next_signal(streams: &mut [(Signal, &'static str, Request)]) -> (&'static str, Request) {
    poll_fn(|context| {
        for (stream, name, request) in streams.iter_mut() {
            if stream.poll_recv(context).is_ready() {
                return Poll::Ready((*name, *request));
            }
        }
        Poll::Pending
    })
    .await
}

fn read_status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// The mask of signals that this process inherited as ignored, from `/proc/self/status`; 0 if the file can't be read.
fn ignored_signals(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_ignored(ignored_signals: u64, kind: SignalKind) -> bool {
    let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(u32::MAX);
    ignored_signals.checked_shr(bit).unwrap_or(0) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_nohup_ignores_is_found_in_the_status_of_the_process() {
        let hangup = |status| is_ignored(ignored_signals(status), SignalKind::hangup());
        assert!(hangup("Name:\tworker\nSigIgn:\t0000000000001001\n"));
        assert!(!hangup("Name:\tworker\nSigIgn:\t0000000000001000\n"));
        assert!(!hangup(""));
    }
}
