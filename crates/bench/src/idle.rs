//! The costs of a worker without messages.

use std::time::{Duration, Instant};

use testkit::postgres::ThrowawayPostgres;

use crate::environment::{Environment, Sender, Workload};
use crate::measurements::Measurements;
use crate::resource_usage::since;

const WARM_UP: Duration = Duration::from_secs(5);

pub(crate) async fn measure(
    server: &ThrowawayPostgres,
    sender: &Sender,
    measured_for: Duration,
) -> anyhow::Result<Measurements> {
    let environment = Environment::create(server, Workload::of(sender)).await?;
    let senders = environment.start_senders().await?;
    tokio::time::sleep(WARM_UP).await;
    let (begun, before) = (Instant::now(), environment.cpu(&senders.processes)?);
    tokio::time::sleep(measured_for).await;
    let used = since(&environment.cpu(&senders.processes)?, &before);
    let us = begun.elapsed().as_secs_f64() * 1e6;
    let costs = environment.stop_senders(senders).await?;
    environment.finish().await?;
    let percent = |name| used[name] / us * 100.0;
    Ok(Measurements::from([
        ("sender_percent_of_a_core".into(), percent("sender_cpu_us")),
        (
            "postgres_percent_of_a_core".into(),
            percent("postgres_cpu_us"),
        ),
        ("peak_memory_mib".into(), costs.peak_memory_mib),
    ]))
}
