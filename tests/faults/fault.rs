//! The faults and their repairs.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::arena::Arena;
use crate::database_proxy::Network;
use harness::{ask, execute};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Random workers get SIGKILL, and new workers replace them.
    WorkersKilled,
    /// A worker is suspended for longer than its leases.
    WorkerSuspended,
    /// The workers' clocks are set an hour ahead, an hour back, and right again.
    ClocksStep,
    /// The clock of Postgres is set an hour ahead, an hour back, and right again.
    DatabaseClockSteps,
    /// The reader of the workers' logs stalls for a while.
    LogReaderStalls,
    /// Postgres crashes and is restarted.
    PostgresCrashes,
    /// Five of the workers' connections a second are terminated.
    ConnectionsTerminated,
    /// Other clients hold all connections of Postgres.
    ConnectionsTaken,
    /// The database is read-only.
    ReadOnly,
    /// The disk of the database is full.
    DiskFull,
    /// The network holds back everything between the workers and Postgres.
    NetworkStalls,
    /// The network drops all bytes, and connections die silently.
    NetworkSwallows,
    /// The API closes connections before or after it accepts the message.
    ApiDrops,
    /// The API accepts messages and does not respond.
    ApiHangs,
    /// The API sends half a response.
    ApiAnswersHalf,
    /// The API sends unreadable responses.
    ApiAnswersGarbage,
    /// The API answers 408.
    ApiTimesOut,
    /// The API answers 500 to each call.
    ApiFails,
    /// The API has all its faults at random, and a worker is killed.
    ApiIsFlaky,
    /// The API answers 500, and the workers' connections are terminated. The outcomes of probes must reach the database.
    ApiFailsAndConnectionsAreTerminated,
}

impl Fault {
    /// True if the fault hits all workers alike and none loses outcomes. Then no message is repeated.
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

    /// Injects the fault, and repairs it after `lasting`.
    pub(crate) async fn happen(self, arena: &mut Arena, rng: &mut StdRng, lasting: Duration) {
        match self {
            Self::WorkersKilled => {
                for _ in 0..3 {
                    arena.fleet.replace_one(&arena.world, rng).await;
                    sleep(lasting / 3).await;
                }
            }
            Self::WorkerSuspended => {
                let suspended = arena.fleet.random(rng);
                suspended.signal("STOP").await;
                // Longer than a lease.
                sleep(lasting.max(Duration::from_secs(4))).await;
                suspended.signal("CONT").await;
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
                let round = "while no log is read";
                arena.assert_recovers(round).await;
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
                // This session stays writable.
                let mut admin = arena.admin().await;
                let database: String = ask(&mut admin, "select current_database()::text").await;
                for (is_read_only, lasting) in [("on", lasting), ("off", Duration::ZERO)] {
                    let setting = format!("default_transaction_read_only = {is_read_only}");
                    let alter = format!("alter database {database} set {setting}");
                    execute(&mut admin, &alter).await;
                    terminate(&mut admin, "").await;
                    sleep(lasting).await;
                }
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
                let rule = |fault| {
                    format!("{fault}:share={share:.3}")
                        .parse()
                        .expect("a fault")
                };
                let faults = "drop drop_before hang half_body garbage 408 500";
                *arena.world.simulator.faults() = faults.split(' ').map(rule).collect();
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

/// Takes all connections, also those of the workers.
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

/// Terminates the connections of workers that `which` chooses.
async fn terminate(admin: &mut PgConnection, which: &str) {
    let statement = format!(
        "select pg_terminate_backend(pid) from (
             select pid from pg_stat_activity where application_name = 'signaling-worker' {which}) as chosen"
    );
    execute(admin, &statement).await;
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
