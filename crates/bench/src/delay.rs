//! The delay of a message while the load is low, and the processor time that it costs. The delay is what a user feels:
//! it begins just before the producer sends its insert, includes the commit, and ends when the call arrives at the API.

use std::time::Duration;

use anyhow::Context as _;

use crate::database_server::DatabaseServer;
use crate::drain::{add_cpu, add_database_costs, count};
use crate::environment::{Environment, EnvironmentConfig, Sender};
use crate::measurements::{Measurements, median, percentile};
use crate::paced_producer::{PacedProducer, millis};
use crate::resource_usage::ResourceUsage;

/// How long the sender runs before the first insert.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// Messages before the measured ones. The first calls have to open their connections.
pub(crate) const WARM_UP_MESSAGES: usize = 100;
/// The measurement fails if no call arrives for so long.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Delay {
    pub(crate) sender: Sender,
    pub(crate) per_s: u32,
    pub(crate) messages: usize,
}

impl Delay {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        let inserts_cpu_s = self.cpu_of_inserts_s(server).await?;

        let config = EnvironmentConfig::of(self.sender.clone());
        let environment = Environment::create(server, config).await?;
        let senders = environment.start_senders().await?;
        tokio::time::sleep(WARM_UP).await;
        let mut producer = PacedProducer::connect(&environment, self.per_s).await?;
        producer.insert(WARM_UP_MESSAGES).await?;
        let before = environment.read_cpu(&senders)?;
        producer.insert(self.messages).await?;
        let all = producer.inserted.len() as u64;
        let arrived = environment.api.wait_for_calls(all, PROGRESS_TIMEOUT);
        arrived.await?;
        let used = environment.read_cpu(&senders)?.since(&before);
        let costs = environment.stop_senders(senders).await?;
        let delays_ms = producer.delays_ms().await?;
        let commits_ms: Vec<f64> = producer
            .inserted
            .iter()
            .skip(WARM_UP_MESSAGES)
            .map(|inserted| millis(inserted.committed - inserted.begun))
            .collect();
        drop(producer);
        environment.remove().await?;
        let delays_ms: Option<Vec<f64>> = delays_ms.into_iter().skip(WARM_UP_MESSAGES).collect();
        let delays_ms = delays_ms.context("the API never received one of the messages")?;

        let mut measurements = Measurements::default();
        measurements.add("delay_p50_ms", median(delays_ms.clone()));
        measurements.add("delay_p95_ms", percentile(delays_ms.clone(), 0.95));
        measurements.add("delay_p99_ms", percentile(delays_ms.clone(), 0.99));
        measurements.add("delay_max_ms", percentile(delays_ms, 1.0));
        measurements.add("commit_p50_ms", median(commits_ms.clone()));
        measurements.add("commit_p99_ms", percentile(commits_ms, 0.99));
        self.add_cpu(&mut measurements, &used, inserts_cpu_s);
        add_database_costs(&mut measurements, &costs, all);
        Ok(measurements)
    }

    /// Adds the processor time of the measured messages. Postgres spends a part of it on the inserts, also without a
    /// sender, so that part is shown apart.
    fn add_cpu(
        &self,
        measurements: &mut Measurements,
        used: &ResourceUsage,
        inserts_cpu_s: Option<f64>,
    ) {
        let messages = self.messages as u64;
        add_cpu(measurements, used, messages);
        let per_thousand = |seconds: f64| seconds * 1e3 / count(messages);
        let inserts = inserts_cpu_s.map(per_thousand);
        measurements.add_some("postgres_cpu_inserts_s_per_1000", inserts);
        let all = used.postgres_cpu_s.map(per_thousand);
        let sending = all.zip(inserts).map(|(all, inserts)| all - inserts);
        measurements.add_some("postgres_cpu_sending_s_per_1000", sending);
    }

    /// Postgres's processor time for the same inserts at the same pace, without a sender. An insert that wakes an idle
    /// worker costs more; the difference counts as sending.
    async fn cpu_of_inserts_s(&self, server: &DatabaseServer) -> anyhow::Result<Option<f64>> {
        let config = EnvironmentConfig::of(self.sender.clone());
        let environment = Environment::create(server, config).await?;
        let mut producer = PacedProducer::connect(&environment, self.per_s).await?;
        producer.insert(WARM_UP_MESSAGES).await?;
        let before = environment.server_cpu_s();
        producer.insert(self.messages).await?;
        let after = environment.server_cpu_s();
        drop(producer);
        environment.remove().await?;
        Ok(after.zip(before).map(|(after, before)| after - before))
    }
}
