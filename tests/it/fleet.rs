//! Several workers, their ends in and out of order, and a database that fails.

mod clock_steps;
mod crashes;
mod database;
mod schema;
mod shutdown;
mod signals;
mod strange_values;
mod waking;
