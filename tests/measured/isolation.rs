//! Databases whose default isolation is not that of the worker's functions.

use testkit::{APP_ID, PgBouncer, Postgres, World, api_with_limit};

const MESSAGES: i32 = 5_000;
const LIMIT_PER_S: u32 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_isolation_of_a_database_costs_no_pace_and_no_warning() {
    for isolation in ["repeatable read", "serializable"] {
        for pooled in [false, true] {
            let context = format!("{isolation}, pooler: {pooled}");
            let mut world = World::alone(api_with_limit(LIMIT_PER_S)).await;
            world
                .alter_database(&format!(
                    "set default_transaction_isolation = '{isolation}'"
                ))
                .await;
            let pooler = if pooled {
                let settings = PgBouncer::variants().await[0];
                let pooler = PgBouncer::start(Postgres::shared().await, settings).await;
                world.url = pooler.url(&world.url);
                Some(pooler)
            } else {
                None
            };
            let start = || {
                let worker = world.worker();
                worker.env("WORKER_RATE", &LIMIT_PER_S.to_string()).start()
            };
            let mut workers = [start(), start()];
            for worker in &workers {
                worker.until_logged("worker_started").await;
            }
            world.insert_many(MESSAGES).await;
            world.until_all_final().await;

            let app = &world.seen().apps[APP_ID];
            assert_eq!(app.calls, 5_000, "{context}");
            assert!(
                app.worst_sliding_second <= u64::from(LIMIT_PER_S),
                "{context}: {} calls in a second",
                app.worst_sliding_second
            );
            let seconds: f64 = world
                .ask("select extract(epoch from max(sent_at) - min(sent_at))::float8 from signaling.outbox")
                .await;
            let rate = f64::from(MESSAGES) / seconds;
            assert!(
                rate > 0.9 * f64::from(LIMIT_PER_S) / 1.02,
                "{context}: {rate:.0} calls a second"
            );
            for worker in &mut workers {
                worker.stop().await;
                let log = worker.stderr.text();
                assert!(!log.contains("WARN"), "{context}: {log}");
            }
            drop(pooler);
        }
    }
}
