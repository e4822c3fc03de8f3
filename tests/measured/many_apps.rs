//! One worker that serves a thousand apps, of which one is busy.

use std::fs;
use std::time::{Duration, Instant};

use harness::{PgBouncer, World, app_table};
use simulator::SimulatorConfig;

const APPS: usize = 1_000;
const MESSAGES: i32 = 5_000;
const LIMIT_PER_S: u32 = 500;
/// The longest time that the worker may take to start.
const STARTUP: Duration = Duration::from_secs(5);
/// The most memory of the worker for each app.
const MAX_KB_PER_APP: u64 = 100;

/// A configuration file with a thousand apps.
fn apps(world: &World) -> String {
    let base_url = world.simulator.base_url();
    let lines = format!("base_url = \"{base_url}\"\nrate = {LIMIT_PER_S}");
    let apps = (0..APPS).map(|number| app_table(&format!("app-{number}"), &lines));
    apps.collect()
}

/// The resident memory of a process, in KB.
fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a size");
    let number = line.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

async fn keeps_its_pace(behind_pooler: bool) {
    let mut world = World::alone(SimulatorConfig::default()).await;
    let settings = PgBouncer::variants().await[0];
    let _pooler = if behind_pooler {
        Some(world.connect_through_pooler(settings).await)
    } else {
        None
    };
    let worker = world.command(&["run"]).file("WORKER_CONFIG", &apps(&world));
    let began = Instant::now();
    let mut worker = worker.start();
    worker.until_logged("worker_started").await;
    let startup = began.elapsed();
    // The busy app sends its first message, and an idle app is served as well.
    world.insert_many_of("app-1", 1).await;
    world.insert_many_of("app-999", 1).await;
    world.until_all_final().await;
    world.insert_many_of("app-1", MESSAGES).await;
    world.until_all_final().await;

    // The median second: a stall of the machine takes calls from one second.
    let rate: f64 = world
        .ask(
            "select percentile_disc(0.5) within group (order by calls)::float8
             from (select count(*) as calls from signaling.outbox where app = 'app-1'
                   group by date_trunc('second', sent_at)) as second",
        )
        .await;
    let memory_kb = resident_kb(worker.pid);
    eprintln!(
        "behind a pooler: {behind_pooler}, started after {startup:?}, {rate:.0} calls/s, {memory_kb} KB"
    );
    let peak: i64 = world
        .ask("select signaling.peak_rate('app-1', '-infinity', 'infinity')")
        .await;
    assert!(peak <= i64::from(LIMIT_PER_S), "{peak} calls in a second");
    let slots_per_s = f64::from(LIMIT_PER_S) / 1.02;
    assert!(rate > 0.95 * slots_per_s, "{rate:.0} calls/s");
    assert!(startup < STARTUP, "started after {startup:?}");
    assert!(memory_kb < APPS as u64 * MAX_KB_PER_APP, "{memory_kb} KB");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_busy_app_among_a_thousand_keeps_its_pace() {
    keeps_its_pace(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_busy_app_among_a_thousand_keeps_its_pace_behind_a_pooler() {
    keeps_its_pace(true).await;
}
