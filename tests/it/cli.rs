//! The command line, as a person or a script meets it.

mod dev;
mod enqueue;
mod health;
mod help;
mod simulate;
mod status;
mod usage;
