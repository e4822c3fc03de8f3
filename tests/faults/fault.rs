//! What goes wrong, and how it is mended.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::sleep;

use crate::arena::Arena;
use crate::proxy::Network;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Random workers get SIGKILL, and others take their places.
    WorkersKilled,
    /// A worker is suspended for longer than its leases, and wakes up.
    WorkerSuspended,
    /// The workers' clocks are set an hour ahead, back, and right again.
    ClocksStep,
    /// The clock of Postgres is set an hour ahead, an hour back, and right again.
    DatabaseClockSteps,
    /// The reader of the workers' logs stalls for a while.
    LogReaderStalls,
    /// Postgres is stopped hard, and started.
    PostgresCrashes,
    /// Five of the workers' connections a second are terminated.
    ConnectionsTerminated,
    /// Everybody else has all connections of Postgres.
    ConnectionsTaken,
    /// The database takes no writes.
    ReadOnly,
    /// The database finds no room for what is written.
    DiskFull,
    /// The network holds back everything between the workers and Postgres.
    NetworkStalls,
    /// The network swallows everything, and connections are dead without a word.
    NetworkSwallows,
    /// The API closes connections before it has taken the message, or after.
    ApiDrops,
    /// The API takes messages and does not answer.
    ApiHangs,
    /// The API stops in the middle of its answers.
    ApiAnswersHalf,
    /// The API answers with what nobody can read.
    ApiAnswersGarbage,
    /// The API answers 408.
    ApiTimesOut,
    /// The API answers 500, to each call.
    ApiFails,
    /// All the ways of the API to go wrong, mixed, and workers killed meanwhile.
    ApiIsFlaky,
    /// The API answers 500, and the workers' connections are terminated: what probes find out has to be told all the
    /// same.
    ApiFailsAndConnectionsAreTerminated,
}

impl Fault {
    pub(crate) const ALL: [Self; 20] = [
        Self::WorkersKilled,
        Self::WorkerSuspended,
        Self::ClocksStep,
        Self::DatabaseClockSteps,
        Self::LogReaderStalls,
        Self::PostgresCrashes,
        Self::ConnectionsTerminated,
        Self::ConnectionsTaken,
        Self::ReadOnly,
        Self::DiskFull,
        Self::NetworkStalls,
        Self::NetworkSwallows,
        Self::ApiDrops,
        Self::ApiHangs,
        Self::ApiAnswersHalf,
        Self::ApiAnswersGarbage,
        Self::ApiTimesOut,
        Self::ApiFails,
        Self::ApiIsFlaky,
        Self::ApiFailsAndConnectionsAreTerminated,
    ];

    /// Whether all workers go through the same at the same time, and none loses what it knows: then nothing is called
    /// twice, however long it lasts.
    pub(crate) fn is_the_same_for_all(self) -> bool {
        matches!(
            self,
            Self::ClocksStep
                | Self::DatabaseClockSteps
                | Self::LogReaderStalls
                | Self::PostgresCrashes
                | Self::ReadOnly
        )
    }

    pub(crate) fn steps_a_clock(self) -> bool {
        matches!(self, Self::ClocksStep | Self::DatabaseClockSteps)
    }

    /// Lets it happen for that long, and mends it.
    pub(crate) async fn happen(self, arena: &mut Arena, rng: &mut StdRng, lasting: Duration) {
        match self {
            Self::WorkersKilled => {
                for _ in 0..3 {
                    arena.fleet.replace_one(&arena.world, rng).await;
                    sleep(lasting / 3).await;
                }
            }
            Self::WorkerSuspended => {
                arena.fleet.signal_one(rng, "STOP").await;
                // Longer than a lease.
                sleep(lasting.max(Duration::from_secs(4))).await;
                arena.fleet.resume().await;
            }
            Self::ClocksStep => {
                for ahead_s in [3600, -3600, 0] {
                    arena.fleet.step_clocks(ahead_s).await;
                    sleep(lasting / 3).await;
                }
            }
            Self::DatabaseClockSteps => {
                for ahead_s in [3600.0, -3600.0, 0.0] {
                    let clock = arena.database_clock.as_ref();
                    clock.expect("a clock that can be set").set(ahead_s);
                    sleep(lasting / 3).await;
                }
            }
            Self::LogReaderStalls => {
                arena.fleet.stall_logs(true);
                // Until the pipes are full.
                sleep(lasting.max(Duration::from_secs(6))).await;
                arena.until_all_work("while nobody reads the logs").await;
                arena.fleet.stall_logs(false);
            }
            Self::PostgresCrashes => {
                arena.postgres.cluster.crash().await.expect("down");
                sleep(lasting).await;
                arena.postgres.cluster.restart().await.expect("up again");
            }
            Self::ConnectionsTerminated => terminate_five_a_second(arena, lasting).await,
            Self::ConnectionsTaken => take_connections(arena, lasting).await,
            Self::ReadOnly => {
                let mut admin = arena.admin().await;
                arena
                    .alter(&mut admin, "set default_transaction_read_only = on")
                    .await;
                terminate(&mut admin, "").await;
                sleep(lasting).await;
                arena
                    .alter(&mut admin, "reset default_transaction_read_only")
                    .await;
                terminate(&mut admin, "").await;
            }
            Self::DiskFull => {
                let mut admin = arena.admin().await;
                execute(&mut admin, DISK_FULL).await;
                sleep(lasting).await;
                execute(&mut admin, DISK_FREE).await;
            }
            Self::NetworkStalls => network(arena, Network::Stalled, lasting).await,
            Self::NetworkSwallows => network(arena, Network::Swallowing, lasting).await,
            Self::ApiDrops => {
                api(arena, &["drop:share=0.3", "drop_before:share=0.3"], lasting).await;
            }
            Self::ApiHangs => api(arena, &["hang:share=0.3"], lasting).await,
            Self::ApiAnswersHalf => api(arena, &["half_body:share=0.4"], lasting).await,
            Self::ApiAnswersGarbage => api(arena, &["garbage:share=0.4"], lasting).await,
            Self::ApiTimesOut => api(arena, &["408:share=0.4"], lasting).await,
            Self::ApiFails => api(arena, &["500"], lasting).await,
            Self::ApiFailsAndConnectionsAreTerminated => {
                arena.world.set_faults(&["500"]);
                terminate_five_a_second(arena, lasting).await;
                arena.world.set_faults(&[]);
            }
            Self::ApiIsFlaky => {
                let share = rng.random_range(0.02..0.1);
                let rules = [
                    "drop",
                    "drop_before",
                    "hang",
                    "half_body",
                    "garbage",
                    "408",
                    "500",
                ]
                .map(|fault| format!("{fault}:share={share:.3}"));
                arena
                    .world
                    .set_faults(&rules.each_ref().map(String::as_str));
                arena.fleet.replace_one(&arena.world, rng).await;
                sleep(lasting).await;
                arena.world.set_faults(&[]);
            }
        }
    }
}

async fn api(arena: &Arena, rules: &[&str], lasting: Duration) {
    arena.world.set_faults(rules);
    sleep(lasting).await;
    arena.world.set_faults(&[]);
}

async fn network(arena: &Arena, network: Network, lasting: Duration) {
    arena.proxy.set(network);
    // Longer than a statement may take.
    sleep(lasting.max(Duration::from_secs(6))).await;
    arena.proxy.set(Network::Up);
}

async fn terminate_five_a_second(arena: &Arena, lasting: Duration) {
    let mut admin = arena.admin().await;
    for _ in 0..(lasting.as_millis() / 200) {
        terminate(&mut admin, "order by random() limit 1").await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Takes every connection that there is, also those that the workers are made to give up.
async fn take_connections(arena: &Arena, lasting: Duration) {
    let url = arena.postgres.cluster.admin_url();
    let mut admin = arena.admin().await;
    let mut taken = Vec::new();
    let begun = std::time::Instant::now();
    while begun.elapsed() < lasting {
        terminate(&mut admin, "order by random() limit 3").await;
        while let Ok(connection) = PgConnection::connect(&url).await {
            taken.push(connection);
        }
        sleep(Duration::from_millis(100)).await;
    }
    for connection in taken {
        connection.close().await.ok();
    }
}

/// Ends connections of workers, those that `which` chooses.
async fn terminate(admin: &mut PgConnection, which: &str) {
    let statement = format!(
        "select pg_terminate_backend(pid) from (
             select pid from pg_stat_activity where application_name = 'signaling-worker' {which}) as chosen"
    );
    execute(admin, &statement).await;
}

async fn execute(admin: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(admin)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Makes most updates fail as on a full disk: with SQLSTATE 53100. The function stands in the schema `signaling`, because workers
/// take an error that a function of another schema raises for a refused message, not for a full disk.
const DISK_FULL: &str = "
    create or replace function signaling.disk_is_full() returns trigger language plpgsql as $$
    begin
        if random() < 0.9 then
            raise exception 'could not extend file: No space left on device' using errcode = 'disk_full';
        end if;
        return new;
    end $$;
    create trigger disk_is_full before update on signaling.outbox
    for each statement execute function signaling.disk_is_full();";
const DISK_FREE: &str = "drop trigger disk_is_full on signaling.outbox;";
