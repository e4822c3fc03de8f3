//! The command line, as a person or a script meets it.

mod application_errors;
mod check;
mod dev;
mod effects;
mod health;
mod help;
mod message;
mod output;
mod simulate;
mod status;
mod usage;
mod workers;
