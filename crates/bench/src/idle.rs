//! What a worker costs that has nothing to do.

use std::time::{Duration, Instant};

use super::figures::Figures;
use super::stage::{Machine, Sender, Setting, Stage};

/// How long it runs before it is looked at.
const WARM_UP: Duration = Duration::from_secs(5);

/// A worker that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    pub(super) sender: Sender,
    pub(super) looked_at_for: Duration,
}

impl Idle {
    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        let stage = Stage::set(machine, Setting::of(self.sender)).await?;
        let senders = stage.start().await?;
        tokio::time::sleep(WARM_UP).await;
        let (begun, before) = (Instant::now(), stage.read_cpu(&senders)?);
        tokio::time::sleep(self.looked_at_for).await;
        let (seconds, after) = (begun.elapsed().as_secs_f64(), stage.read_cpu(&senders)?);
        let used = after.since(&before);
        let costs = stage.stop(senders).await?;
        stage.clear().await?;
        let percent = |cpu_s: Option<f64>| Some(cpu_s? / seconds * 100.0);
        let mut figures = Figures::default();
        figures.add_some("sender_percent_of_a_core", percent(used.sender_cpu_s));
        figures.add_some("postgres_percent_of_a_core", percent(used.postgres_cpu_s));
        figures.add_some("peak_memory_mib", costs.peak_memory_mib);
        Ok(figures)
    }
}
