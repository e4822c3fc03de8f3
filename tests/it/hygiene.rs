//! Inputs are bounded, and no output shows a payload or a secret.

mod answers;
mod echo;
mod files;
mod markers;
mod raw_api;
mod release;
mod silence;
