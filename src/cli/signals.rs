//! Handles signals of a process that serves. A signal without a handler would end the process at once and lose the outcomes of
//! calls in flight.

use anyhow::Context;
use futures_util::future::select_all;
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

/// Cancels `shutdown` at the first signal that asks for a shutdown. Returns at the second [`Request::End`].
pub(crate) fn signals(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut streams: Vec<(Signal, &str, Request)> = Vec::new();
    for (name, kind, request) in [
        ("SIGTERM", SignalKind::terminate(), Request::End),
        ("SIGINT", SignalKind::interrupt(), Request::End),
        ("SIGQUIT", SignalKind::quit(), Request::End),
        ("SIGHUP", SignalKind::hangup(), Request::EndInOrder),
        ("SIGALRM", SignalKind::alarm(), Request::EndInOrder),
        ("SIGUSR1", SignalKind::user_defined1(), Request::Ignored),
        ("SIGUSR2", SignalKind::user_defined2(), Request::Ignored),
        ("SIGXFSZ", SignalKind::from_raw(SIGXFSZ), Request::Ignored),
    ] {
        // `nohup` ignores the signal for the process that it starts.
        if name == "SIGHUP" && is_ignored(kind) {
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
    let next = streams.iter_mut().map(|(stream, name, request)| {
        Box::pin(async move {
            stream.recv().await;
            (*name, *request)
        })
    });
    select_all(next).await.0
}

/// True if this process inherited the signal as ignored. False if `/proc/self/status` can't be read.
pub(crate) fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}
