//! The command line, as a person or a script meets it.

mod application_errors;
mod check;
mod dev;
mod dev_command;
mod effects;
mod health;
mod help;
mod message;
mod names_and_times;
mod output;
mod pages;
mod simulate;
mod status;
mod usage;
mod workers;
