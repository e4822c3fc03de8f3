//! The costs of a worker without messages.

use std::time::{Duration, Instant};

use crate::environment::Environment;
use crate::measurements::Measurements;
use crate::resource_usage::since;

const WARM_UP: Duration = Duration::from_secs(5);

pub(crate) async fn measure(environment: Environment<'_>) -> anyhow::Result<Measurements> {
    let workload = environment.workload;
    let senders = environment.start_senders().await?;
    tokio::time::sleep(WARM_UP).await;
    let (begun, before) = (Instant::now(), environment.cpu(&senders.processes)?);
    tokio::time::sleep(workload.measured_for).await;
    let used = since(&environment.cpu(&senders.processes)?, &before);
    let us = begun.elapsed().as_secs_f64() * 1e6;
    let (_, peak_memory_mib) = environment.stop_senders(senders).await?;
    environment.finish(0).await?;
    let percents = ["sender", "postgres"].map(|process| {
        let cpu_us = used[&*format!("{process}_cpu_us")];
        (format!("{process}_percent_of_a_core"), cpu_us / us * 100.0)
    });
    let mut measurements = Measurements::from(percents);
    measurements.insert("peak_memory_mib".into(), peak_memory_mib);
    Ok(measurements)
}
