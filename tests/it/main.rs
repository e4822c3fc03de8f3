//! The compiled binary against a real Postgres and the simulated API, looked at from outside: by SQL, by exit codes
//! and output, and by the API's own ledger of what arrived. The names of the tests are the claims that they hold.

mod certificates;
mod cli;
mod connect_proxy;
mod connections;
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
