//! The workers of the suite. A test may kill and replace a worker. No worker may end by itself.

use rand::RngExt;
use rand::rngs::StdRng;
use time::OffsetDateTime;
use time::macros::format_description;

use harness::{PATIENCE, Running, SteppedClock, World, until};

const WORKERS: usize = 3;

pub(crate) struct Fleet {
    url: String,
    /// The clock of the workers, if a fault sets it.
    clock: Option<SteppedClock>,
    started: usize,
    workers: Vec<(String, Running)>,
}

impl Fleet {
    pub(crate) fn start(world: &World, url: String, clock: Option<SteppedClock>) -> Self {
        let mut fleet = Self {
            url,
            clock,
            started: 0,
            workers: Vec::new(),
        };
        for _ in 0..WORKERS {
            fleet.add(world);
        }
        fleet
    }

    fn add(&mut self, world: &World) {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let mut worker = world
            .worker()
            .env("DATABASE_URL", &self.url)
            .env("WORKER_NAME", &name)
            .env("WORKER_RATE", &crate::LIMIT.to_string())
            .env("WORKER_REQUEST_TIMEOUT", "1s")
            .env("WORKER_CONNECT_TIMEOUT", "1s")
            .env("WORKER_LEASE", "3s")
            .env("WORKER_RETRY_CAP", "500ms")
            // A log line for each call explains failures and shows the clock of the worker.
            .env("WORKER_LOG", "info,signaling_worker=debug")
            .small_log_pipe();
        for (name, value) in self.clock.iter().flat_map(SteppedClock::environment) {
            worker = worker.env(name, &value);
        }
        self.workers.push((name, worker.start()));
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.workers.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn random(&mut self, rng: &mut StdRng) -> &mut Running {
        let index = rng.random_range(0..self.workers.len());
        &mut self.workers[index].1
    }

    /// Kills a worker, and starts a new one.
    pub(crate) async fn replace_one(&mut self, world: &World, rng: &mut StdRng) {
        let index = rng.random_range(0..self.workers.len());
        let (_, mut victim) = self.workers.swap_remove(index);
        victim.kill().await;
        self.add(world);
    }

    /// Stops or resumes the reading of all logs.
    pub(crate) fn stall_logs(&self, are_stalled: bool) {
        for (_, worker) in &self.workers {
            worker.stall_log(are_stalled);
        }
    }

    /// Sets the workers' clocks, and waits until a worker logs the new time.
    pub(crate) async fn step_clocks(&mut self, ahead_s: i32) {
        let clock = self.clock.as_ref().expect("a clock");
        clock.set(f64::from(ahead_s));
        let minute = |minutes: i64| {
            #[expect(clippy::disallowed_methods, reason = "the clock that is stepped")]
            let now = OffsetDateTime::now_utc();
            let shown = now + time::Duration::seconds(i64::from(ahead_s) + 60 * minutes);
            shown.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:"))
        };
        // The minute may end before the next log line.
        let minutes = [minute(0), minute(1)].map(|minute| minute.expect("formatted"));
        until("a worker logs with its new time", PATIENCE, async || {
            self.workers.iter().any(|(_, worker)| {
                let said = worker.stderr.text();
                minutes.iter().any(|minute| said.contains(minute))
            })
        })
        .await;
    }

    pub(crate) fn assert_all_run(&mut self, round: &str) {
        for (name, worker) in &mut self.workers {
            assert!(worker.is_running(), "{round}: {name} has ended");
        }
    }

    pub(crate) async fn stop(&mut self) {
        for (_, worker) in &mut self.workers {
            worker.stop().await;
        }
    }
}
