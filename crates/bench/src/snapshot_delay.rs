//! The delay of messages while another session holds a snapshot: is a message as fast after minutes as at the start?
//! Vacuum can't remove the row versions that the snapshot may see, so they add up.

use std::time::Duration;

use anyhow::Context as _;

use crate::database_server::DatabaseServer;
use crate::delay::{PROGRESS_TIMEOUT, WARM_UP, WARM_UP_MESSAGES};
use crate::drain::{add_cpu, add_database_costs};
use crate::environment::{Environment, EnvironmentConfig, Sender};
use crate::measurements::{Measurements, median, percentile};
use crate::paced_producer::PacedProducer;

#[derive(Debug, Clone)]
pub(crate) struct SnapshotDelay {
    pub(crate) sender: Sender,
    pub(crate) per_s: u32,
    pub(crate) minutes: u32,
    /// The length of a minute, which `--scale` shortens.
    pub(crate) minute: Duration,
}

impl SnapshotDelay {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let config = EnvironmentConfig::of(self.sender.clone());
        let environment = Environment::create(server, config).await?;
        let snapshot = environment.hold_snapshot().await?;
        let senders = environment.start_senders().await?;
        tokio::time::sleep(WARM_UP).await;
        let mut producer = PacedProducer::connect(&environment, self.per_s).await?;
        producer.insert(WARM_UP_MESSAGES).await?;
        let before = environment.read_cpu(&senders)?;
        let length = self.minute * self.minutes;
        let begun = producer.insert_for(length).await?;
        let all = producer.inserted.len();
        let arrived = environment.api.wait_for_calls(all as u64, PROGRESS_TIMEOUT);
        arrived.await?;
        let used = environment.read_cpu(&senders)?.since(&before);
        let costs = environment.stop_senders(senders).await?;
        let delays_ms = producer.delays_ms().await?;
        // When each message was inserted, from the start of the first minute, and its delay.
        let delays: Option<Vec<(Duration, f64)>> = producer
            .inserted
            .iter()
            .zip(delays_ms)
            .skip(WARM_UP_MESSAGES)
            .map(|(inserted, delay_ms)| Some((inserted.begun - begun, delay_ms?)))
            .collect();
        let delays = delays.context("the API never received one of the messages")?;
        drop(producer);
        drop(snapshot);
        environment.remove().await?;

        let within = |from: Duration, to: Duration| -> Vec<f64> {
            let inside = delays.iter().filter(|(at, _)| (from..to).contains(at));
            inside.map(|(_, delay_ms)| *delay_ms).collect()
        };
        let first = within(Duration::ZERO, self.minute);
        let last = within(length.saturating_sub(self.minute), length);
        let (first_p50, last_p50) = (median(first.clone()), median(last.clone()));
        let mut measurements = Measurements::default();
        measurements.add("first_minute_p50_ms", first_p50);
        measurements.add("last_minute_p50_ms", last_p50);
        measurements.add("last_of_first_percent", last_p50 / first_p50 * 100.0);
        measurements.add("first_minute_p99_ms", percentile(first, 0.99));
        measurements.add("last_minute_p99_ms", percentile(last, 0.99));
        add_cpu(&mut measurements, &used, delays.len() as u64);
        add_database_costs(&mut measurements, &costs, all as u64);
        Ok(measurements)
    }
}
