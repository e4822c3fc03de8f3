//! Several workers, shutdowns, crashes, and outages of the database.

mod clock_steps;
mod crashes;
mod database;
mod schema;
mod shutdown;
mod signals;
mod strange_values;
mod waking;
