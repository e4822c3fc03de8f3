//! The costs of a worker without messages.

use std::time::{Duration, Instant};

use crate::database_server::DatabaseServer;
use crate::environment::{Environment, EnvironmentConfig, Sender};
use crate::measurements::Measurements;

/// How long the worker runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Idle {
    pub(crate) sender: Sender,
    pub(crate) measured_for: Duration,
}

impl Idle {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let environment =
            Environment::create(server, EnvironmentConfig::of(self.sender.clone())).await?;
        let senders = environment.start_senders().await?;
        tokio::time::sleep(WARM_UP).await;
        let (begun, before) = (Instant::now(), environment.read_cpu(&senders)?);
        tokio::time::sleep(self.measured_for).await;
        let (seconds, after) = (
            begun.elapsed().as_secs_f64(),
            environment.read_cpu(&senders)?,
        );
        let used = after.since(&before);
        let costs = environment.stop_senders(senders).await?;
        environment.remove().await?;
        let percent = |cpu_s: Option<f64>| Some(cpu_s? / seconds * 100.0);
        let mut measurements = Measurements::default();
        measurements.add_some("sender_percent_of_a_core", percent(used.sender_cpu_s));
        measurements.add_some("postgres_percent_of_a_core", percent(used.postgres_cpu_s));
        measurements.add_some("peak_memory_mib", costs.peak_memory_mib);
        Ok(measurements)
    }
}
