//! The compiled binary against a real Postgres and the simulated API. Tests observe it by SQL, by exit codes, by output and
//! by the ledger of the API. The name of a test is its claim.

mod certificates;
mod cli;
mod connect_proxy;
mod connections;
#[expect(dead_code, reason = "other tests use the rest")]
mod database_proxy;
mod delivery;
mod docs;
mod fleet;
mod hygiene;
mod logs;
mod moved;
mod ops;
mod producers;
mod pushback;
mod retention;
mod schema;
mod stats;
mod traces;
