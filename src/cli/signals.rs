//! Handles signals of `worker run` and `worker dev`. A signal without a handler would end the process at once and lose the
//! outcomes of calls in flight.

use anyhow::Context;
use futures_util::FutureExt as _;
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

const SIGNALS: [(SignalKind, &str, Request); 8] = [
    (SignalKind::terminate(), "SIGTERM", Request::End),
    (SignalKind::interrupt(), "SIGINT", Request::End),
    (SignalKind::quit(), "SIGQUIT", Request::End),
    (SignalKind::hangup(), "SIGHUP", Request::EndInOrder),
    (SignalKind::alarm(), "SIGALRM", Request::EndInOrder),
    (SignalKind::user_defined1(), "SIGUSR1", Request::Ignored),
    (SignalKind::user_defined2(), "SIGUSR2", Request::Ignored),
    // A file has reached the size limit (`ulimit -f`). With a handler, the write fails and the process goes on.
    (SignalKind::from_raw(25), "SIGXFSZ", Request::Ignored),
];

/// Cancels `shutdown` at the first signal that asks for a shutdown. Returns at the second [`Request::End`].
pub(crate) fn signals(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen(SIGNALS.map(|(kind, ..)| kind))?;
    Ok(async move {
        let mut ends = 0;
        while ends < 2 {
            let kind = signals.next().await;
            let Some((_, name, request)) = SIGNALS.iter().find(|(known, ..)| *known == kind) else {
                continue;
            };
            if *request == Request::Ignored {
                tracing::info!(
                    event = "signal_ignored",
                    signal = name,
                    "the worker ignores this signal"
                );
                continue;
            }
            ends += usize::from(*request == Request::End);
            if !shutdown.is_cancelled() {
                tracing::info!(
                    event = "shutdown_started",
                    signal = name,
                    "shutting down: the worker claims nothing more and finishes calls in flight; the second SIGTERM, SIGINT or SIGQUIT ends it at once"
                );
            }
            shutdown.cancel();
        }
    })
}

/// Signals that this process receives. While this value exists, none of them ends the process.
pub(crate) struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    pub(crate) fn listen(kinds: impl IntoIterator<Item = SignalKind>) -> anyhow::Result<Self> {
        let mut streams = Vec::new();
        for kind in kinds {
            // `nohup` makes its command ignore SIGHUP. With a handler, this process and its own commands would no longer
            // ignore the signal.
            if kind == SignalKind::hangup() && is_ignored(kind) {
                continue;
            }
            let number = kind.as_raw_value();
            let stream = signal(kind);
            let stream = stream.with_context(|| format!("signal {number} can't be handled"))?;
            streams.push((kind, stream));
        }
        Ok(Self(streams))
    }

    pub(crate) async fn next(&mut self) -> SignalKind {
        let streams = self.0.iter_mut();
        let received = streams.map(|(kind, stream)| Box::pin(stream.recv().map(|_| *kind)));
        select_all(received).await.0
    }
}

/// True if this process inherited the signal as ignored. False if `/proc/self/status` can't be read.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}
