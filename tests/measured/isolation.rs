//! Databases whose default isolation is not that of the worker's functions.

use harness::{PgBouncer, SchedulerStalls, World, fleet};
use simulator::SimulatorConfig;

const MESSAGES: i32 = 2_500;
/// Half of what a slow machine can send.
const LIMIT_PER_S: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_isolation_of_a_database_costs_no_pace_and_no_warning() {
    for isolation in ["repeatable read", "serializable"] {
        for pooled in [false, true] {
            let context = format!("{isolation}, pooler: {pooled}");
            let mut world = World::alone(SimulatorConfig::default()).await;
            let stalls = SchedulerStalls::watch();
            world
                .alter_database(&format!(
                    "set default_transaction_isolation = '{isolation}'"
                ))
                .await;
            let settings = PgBouncer::variants().await[0];
            let _pooler = if pooled {
                Some(world.connect_through_pooler(settings).await)
            } else {
                None
            };
            let rate = LIMIT_PER_S.to_string();
            let mut workers = fleet(2, || world.worker().env("WORKER_RATE", &rate)).await;
            world.insert_many(MESSAGES).await;
            world.until_all_final().await;

            assert_eq!(world.seen().calls, 2_500, "{context}");
            world.assert_kept_limit(LIMIT_PER_S, &stalls).await;
            let seconds: f64 = world
                .ask("select extract(epoch from max(sent_at) - min(sent_at))::float8 from signaling.outbox")
                .await;
            let rate = f64::from(MESSAGES) / seconds;
            let slots_per_s = f64::from(LIMIT_PER_S) / 1.02;
            assert!(rate > 0.9 * slots_per_s, "{context}: {rate:.0} calls/s");
            for worker in &mut workers {
                worker.stop().await;
                let log = worker.stderr.text();
                assert!(!log.contains("WARN"), "{context}: {log}");
            }
        }
    }
}
