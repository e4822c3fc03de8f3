//! The delay of a message under a low load, and its processor time. A user's delay begins just before the producer
//! sends its insert, includes the commit, and ends when the call arrives at the API.

use std::time::Duration;

use anyhow::Context as _;
use testkit::postgres::ThrowawayPostgres;

use crate::environment::{Environment, Sender, Workload};
use crate::measurements::{Measurements, count, median, percentile};
use crate::paced_producer::{PacedProducer, millis};
use crate::resource_usage::{add_per_message, since};

/// The sender runs for so long before the first insert.
const WARM_UP: Duration = Duration::from_secs(2);
/// The first calls open their connections, so they are not measured.
const WARM_UP_MESSAGES: u16 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Delay {
    pub(crate) sender: Sender,
    pub(crate) messages: u64,
    /// Another session holds a snapshot, so that row versions pile up. The first tenth of the messages is compared
    /// with the last one.
    pub(crate) holds_snapshot: bool,
}

impl Delay {
    pub(crate) async fn measure(&self, server: &ThrowawayPostgres) -> anyhow::Result<Measurements> {
        let mut measurements = Measurements::default();
        if !self.holds_snapshot {
            let inserts_us = self.cpu_of_inserts_us(server).await?;
            measurements.insert(
                "postgres_cpu_of_inserts_us_per_message".into(),
                inserts_us / count(self.messages),
            );
        }
        let environment = Environment::create(server, Workload::of(&self.sender)).await?;
        let snapshot = environment.hold_snapshot_if(self.holds_snapshot).await?;
        let senders = environment.start_senders().await?;
        tokio::time::sleep(WARM_UP).await;
        let mut producer = PacedProducer::connect(&environment).await?;
        producer.insert(WARM_UP_MESSAGES.into()).await?;
        let before = environment.cpu(&senders)?;
        producer.insert(self.messages).await?;
        let all = producer.inserted.len() as u64;
        environment.api.wait_for_calls(all).await?;
        let cpu = since(&environment.cpu(&senders)?, &before);
        let costs = environment.stop_senders(senders).await?;
        let delays_ms = producer.delays_ms().await?.into_iter();
        let delays_ms: Option<Vec<f64>> = delays_ms.skip(WARM_UP_MESSAGES.into()).collect();
        let delays_ms = delays_ms.context("the API never received one of the messages")?;
        let inserted = producer.inserted.iter().skip(WARM_UP_MESSAGES.into());
        let commits_ms: Vec<f64> = inserted
            .map(|inserted| millis(inserted.committed - inserted.begun))
            .collect();
        drop((producer, snapshot));
        environment.finish().await?;

        if self.holds_snapshot {
            let tenth = delays_ms.len() / 10;
            let first = median(delays_ms[..tenth].to_vec());
            let last = median(delays_ms[delays_ms.len() - tenth..].to_vec());
            measurements.insert("delay_of_first_tenth_p50_ms".into(), first);
            measurements.insert("delay_of_last_tenth_p50_ms".into(), last);
            measurements.insert("last_of_first_percent".into(), last / first * 100.0);
        }
        add_per_message(&mut measurements, &costs.used, all);
        // Only the processor time of the measured messages: a start takes much more.
        add_per_message(&mut measurements, &cpu, self.messages);
        measurements.extend([
            ("delay_p50_ms".into(), median(delays_ms.clone())),
            ("delay_p95_ms".into(), percentile(delays_ms.clone(), 0.95)),
            ("delay_p99_ms".into(), percentile(delays_ms.clone(), 0.99)),
            ("delay_max_ms".into(), percentile(delays_ms, 1.0)),
            ("commit_p50_ms".into(), median(commits_ms.clone())),
            ("commit_p99_ms".into(), percentile(commits_ms, 0.99)),
            ("peak_memory_mib".into(), costs.peak_memory_mib),
        ]);
        Ok(measurements)
    }

    /// Postgres's processor time for the same inserts without a sender. An insert that wakes an idle worker costs more;
    /// the difference counts as sending.
    async fn cpu_of_inserts_us(&self, server: &ThrowawayPostgres) -> anyhow::Result<f64> {
        let environment = Environment::create(server, Workload::of(&self.sender)).await?;
        let mut producer = PacedProducer::connect(&environment).await?;
        producer.insert(WARM_UP_MESSAGES.into()).await?;
        let before = environment.server_cpu_us()?;
        producer.insert(self.messages).await?;
        let used = environment.server_cpu_us()? - before;
        drop(producer);
        environment.finish().await?;
        Ok(used)
    }
}
